"""What every fit over ranks needs: workers, tables spread over them, their state, checkpoints and export."""
