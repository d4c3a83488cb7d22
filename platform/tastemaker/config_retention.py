"""What is kept and for how long. Not how the rest is removed (`retention`)."""

from pydantic import Field

from tastemaker.strict import Strict


class RetentionSettings(Strict):
    """What `tastemaker gc` may remove. A number that is unset keeps all of its kind for ever."""

    bundles: int | None = Field(
        None, ge=1, description="newest versions that are kept beside those in use; empty keeps all"
    )
    history_days: int = Field(
        30, ge=0, le=3650, description="a version that an alias named in that time is in use"
    )
    run_days: int | None = Field(
        None, ge=1, description="days that MLflow runs behind no version are kept; empty keeps all"
    )
    checkpoint_days: int | None = Field(
        None,
        ge=1,
        description="days since a training last used them that its files are kept; empty keeps all",
    )
    event_days: int | None = Field(None, ge=1, description="days of archived events; empty keeps all")
    decision_days: int | None = Field(None, ge=1, description="days of archived decisions; empty keeps all")
    reject_days: int | None = Field(
        None,
        ge=1,
        description="days that an import's refused rows are kept; empty keeps them until the next import",
    )
    grace_hours: float = Field(
        24.0, ge=1, le=8760, description="nothing that was written later than that ago is removed"
    )
