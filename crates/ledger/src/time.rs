use jiff::Timestamp;
use sqlx::{
    Decode, Postgres, Type,
    error::BoxDynError,
    postgres::{PgTypeInfo, PgValueRef},
};

/// Microseconds from 1970 to 2000, where Postgres begins to count.
const POSTGRES_EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// Reads a `timestamptz` as a [`Timestamp`]; nothing writes one, since only the database's clock counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub Timestamp);

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("TIMESTAMPTZ")
    }
}

impl Decode<'_, Postgres> for Time {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let microseconds = <i64 as Decode<Postgres>>::decode(value)?;
        Ok(Self(Timestamp::from_microsecond(microseconds.saturating_add(POSTGRES_EPOCH_MICROSECONDS))?))
    }
}
