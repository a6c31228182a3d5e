//! What holds for an instance where its settings say nothing, for those who want to see it.

use super::settings::{
    CENSUS_SECONDS, FISCAL_YEAR_START, GONE_PERCENT, OVERLAP_MINUTES, PAGE_SIZE, POLL_SECONDS,
    TIMEOUT_SECONDS,
};

/// The keys that a server (`url`) or files may leave out, with what holds then.
pub fn defaults(is_server: bool) -> Vec<(&'static str, toml::Value)> {
    let mut all = vec![
        ("fiscal_year_starts", i64::from(FISCAL_YEAR_START).into()),
        ("poll_seconds", i64::from(POLL_SECONDS).into()),
    ];
    if is_server {
        all.extend([
            ("page_size", i64::from(PAGE_SIZE).into()),
            ("overlap_minutes", i64::from(OVERLAP_MINUTES).into()),
            ("timeout_seconds", i64::from(TIMEOUT_SECONDS).into()),
            ("census_seconds", i64::from(CENSUS_SECONDS).into()),
            ("gone_percent", i64::from(GONE_PERCENT).into()),
            ("allow_plain_http", false.into()),
            ("incidents", false.into()),
        ]);
    }
    all
}
