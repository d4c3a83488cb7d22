"""What is known of users beside their events: profiles, consent, and which ids are one user."""
