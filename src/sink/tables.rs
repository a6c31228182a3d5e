//! The tables that are the same for every pack, each column with what it means.

/// Table of the values of all indicators; its dimension columns come from the catalog.
pub(super) const VALUES: &str = "indicator_values";
/// Columns of [`VALUES`] that come before the dimensions.
pub(super) const VALUES_HEAD: &[ColumnDef] = &[
    (
        "cell",
        "uuid PRIMARY KEY",
        "Key of the cell, made from indicator, instance, period and dimensions",
    ),
    ("indicator", "text NOT NULL", "Code of the indicator, see the table indicators"),
    ("instance", "text NOT NULL", "The Primero instance, or all for every instance together"),
    (
        "period_type",
        "text NOT NULL",
        "Length of the period: week (from Sunday), month, quarter, half, year, fiscal_year, or now",
    ),
    ("period_start", "date", "First day of the period; empty when period_type is now"),
];
/// Columns of [`VALUES`] that come after the dimensions.
pub(super) const VALUES_TAIL: &[ColumnDef] = &[
    (
        "numerator",
        "bigint NOT NULL",
        "The count, the part of a share, or the sum of a mean or median",
    ),
    ("denominator", "bigint", "The whole of a share, or how many were summed; empty for a count"),
    MEDIAN,
    VALUE,
    REVISION,
    PROVISIONAL,
    EPOCH,
    UPDATED_AT,
];
/// What [`VALUES`] is for.
pub(super) const VALUES_COMMENT: &str =
    "One row for each value of each indicator, by instance, period and breakdown";

/// The median, where one is published. Part of step 2, as the three that follow: they never change.
pub(super) const MEDIAN: ColumnDef =
    ("median", "double precision", "The median of what was summed; empty where none is published");
/// The figure itself.
pub(super) const VALUE: ColumnDef = (
    "value",
    "double precision GENERATED ALWAYS AS (CASE WHEN median IS NOT NULL THEN median \
     WHEN denominator IS NULL THEN numerator::double precision WHEN denominator = 0 THEN NULL \
     ELSE numerator::double precision / denominator END) STORED",
    "The median, else numerator divided by denominator, else the numerator; \
     empty when the denominator is 0",
);
/// How often the figure changed.
pub(super) const REVISION: ColumnDef = (
    "revision",
    "integer NOT NULL DEFAULT 1",
    "1 at first, one more with each change of the figure, leaving and coming back included",
);
/// Whether the figure may still grow by itself.
pub(super) const PROVISIONAL: ColumnDef = (
    "provisional",
    "boolean NOT NULL DEFAULT true",
    "Whether the period is not over yet; always true when period_type is now",
);

/// Number of the epoch that changed the row last.
pub(super) const EPOCH: ColumnDef =
    ("epoch", "bigint NOT NULL", "The epoch that changed this row last, see the table epochs");
/// Moment of the epoch that changed the row last.
pub(super) const UPDATED_AT: ColumnDef =
    ("updated_at", "timestamptz NOT NULL", "When the epoch that changed this row last was closed");

/// Name, type with constraints, and meaning of a column.
pub(super) type ColumnDef = (&'static str, &'static str, &'static str);

/// A table that is the same for every pack.
pub(super) struct TableDef {
    pub(super) name: &'static str,
    pub(super) comment: &'static str,
    pub(super) columns: &'static [ColumnDef],
    /// Table constraint, if any.
    pub(super) constraint: Option<&'static str>,
}

/// Columns that step 2 added to tables of step 1.
pub(super) const ADDED: &[(&str, ColumnDef)] = &[
    ("changes", ("old_median", "double precision", "Before; empty where none is published")),
    ("changes", ("new_median", "double precision", "After; empty where none is published")),
    (
        "changes",
        (
            "revision",
            "integer",
            "Revision of the figure after the change; empty for changes written by version 1",
        ),
    ),
    (
        "epochs",
        (
            "rows_settled",
            "bigint NOT NULL DEFAULT 0",
            "Rows of indicator_values that stopped being provisional; not among rows_updated",
        ),
    ),
];

/// Name of the table of frozen figures.
pub(super) const FROZEN: &str = "frozen_values";
/// Name of the view of frozen figures that are no longer what the tables show.
pub(super) const FROZEN_DIFFERENCES: &str = "frozen_differences";

/// The fixed tables that step 2 added.
pub(super) const LATER: &[TableDef] = &[
    TableDef {
        name: "tonle_left",
        comment: "Internal: the last revision of cells that left indicator_values",
        columns: &[
            ("cell", "uuid PRIMARY KEY", "The cell, as in changes"),
            ("revision", "integer NOT NULL", "The revision with which it left"),
        ],
        constraint: None,
    },
    TableDef {
        name: FROZEN,
        comment: "Figures of a period as they were when it was frozen; a row never changes",
        columns: &[
            ("period", "text NOT NULL", "The frozen period, for example 2026-Q3"),
            ("frozen_at", "timestamptz NOT NULL", "When it was frozen"),
            ("epoch", "bigint NOT NULL", "The epoch that the tables showed then"),
            ("cell", "uuid PRIMARY KEY", "The cell, as in indicator_values"),
            ("indicator", "text NOT NULL", "Code of the indicator"),
            ("instance", "text NOT NULL", "The Primero instance, or all"),
            ("period_type", "text NOT NULL", "Length of the period, as in indicator_values"),
            ("period_start", "date NOT NULL", "First day of the period"),
            (
                "dimensions",
                "jsonb NOT NULL",
                "Value of each dimension that it is broken down by; all others are all. One column, \
                 so that a frozen row outlives the dimensions of its pack",
            ),
            ("numerator", "bigint NOT NULL", "As in indicator_values"),
            ("denominator", "bigint", "As in indicator_values"),
            ("median", "double precision", "As in indicator_values"),
            ("value", "double precision", "As in indicator_values"),
            ("revision", "integer NOT NULL", "Revision of the frozen figure"),
            (
                "provisional",
                "boolean NOT NULL",
                "Whether the period was not over when it was frozen",
            ),
        ],
        constraint: None,
    },
];

/// Every fixed table of schema version 1, as step 1 made it. What came later is in [`ADDED`] and [`LATER`].
pub(super) const FIXED: &[TableDef] = &[
    TableDef {
        name: "tonle_pipeline",
        comment: "Internal: which run of tonle writes here, and the last epoch it committed",
        columns: &[
            ("only_row", "boolean PRIMARY KEY DEFAULT true CHECK (only_row)", "Always true"),
            ("epoch", "bigint NOT NULL DEFAULT 0", "Last committed epoch; 0 before the first"),
            ("run_id", "uuid NOT NULL", "The run of tonle that may write"),
            ("pipeline_id", "uuid", "The state directory that the rows were written from"),
            ("fingerprint", "bigint", "Fingerprint of the catalog that the tables follow"),
            ("pack", "text NOT NULL DEFAULT ''", "The pack and overlays that the tables follow"),
            ("written_at", "timestamptz NOT NULL DEFAULT now()", "When this row was written last"),
        ],
        constraint: None,
    },
    TableDef {
        name: "tonle_extracts",
        comment: "Internal: the tables of anonymized rows that tonle made",
        columns: &[("table_name", "text PRIMARY KEY", "Name of the table")],
        constraint: None,
    },
    TableDef {
        name: "epochs",
        comment: "One row for each committed transaction of changes",
        columns: &[
            ("epoch", "bigint PRIMARY KEY", "Number of the epoch"),
            ("at", "timestamptz NOT NULL", "When the epoch was closed"),
            ("reason", "text NOT NULL", "Why rows changed"),
            ("cases_added", "bigint NOT NULL", "Cases that were not known before"),
            ("cases_corrected", "bigint NOT NULL", "Known cases with new content"),
            ("cases_disabled", "bigint NOT NULL", "Cases that were disabled or erased"),
            ("cases_changed", "bigint NOT NULL", "All changed cases"),
            ("cells_changed", "bigint NOT NULL", "Changed rows of indicator_values"),
            ("rows_inserted", "bigint NOT NULL", "Rows that were added, in all tables"),
            ("rows_updated", "bigint NOT NULL", "Rows that were changed, in all tables"),
            ("rows_deleted", "bigint NOT NULL", "Rows that left, in all tables"),
            ("written_at", "timestamptz NOT NULL DEFAULT now()", "When the transaction began"),
        ],
        constraint: None,
    },
    TableDef {
        name: "changes",
        comment: "Every change of every indicator value, append-only",
        columns: &[
            ("epoch", "bigint NOT NULL", "The epoch that made the change"),
            ("cell", "uuid NOT NULL", "The cell, as in indicator_values"),
            ("indicator", "text NOT NULL", "Code of the indicator"),
            ("old_numerator", "bigint", "Before; empty when the cell did not exist"),
            ("old_denominator", "bigint", "Before; empty for a count"),
            ("new_numerator", "bigint", "After; empty when the cell left"),
            ("new_denominator", "bigint", "After; empty for a count"),
            ("reason", "text NOT NULL", "Why it changed"),
            ("at", "timestamptz NOT NULL", "When the epoch was closed"),
        ],
        constraint: Some("PRIMARY KEY (epoch, cell)"),
    },
    TableDef {
        name: "indicators",
        comment: "What each indicator means",
        columns: &[
            ("indicator", "text PRIMARY KEY", "Code of the indicator"),
            ("title", "jsonb NOT NULL", "Title by language"),
            ("definition", "jsonb NOT NULL", "Definition by language"),
            ("unit", "text NOT NULL", "count or share"),
            ("kind", "text NOT NULL", "How cases fall into periods: flow, stock, presence or now"),
            (
                "not_additive_over",
                "text[] NOT NULL",
                "Dimensions over which its values may not be added up",
            ),
            ("pack", "text NOT NULL", "The pack that declares it"),
        ],
        constraint: None,
    },
    TableDef {
        name: "options",
        comment: "The values of each dimension and coded column, with their labels",
        columns: &[
            ("dimension", "text NOT NULL", "Name of the dimension or column"),
            ("value", "text NOT NULL", "The value as it stands in the rows"),
            ("position", "integer NOT NULL", "Its place among the values of the dimension"),
            ("label", "jsonb NOT NULL", "Label by language"),
        ],
        constraint: Some("PRIMARY KEY (dimension, value)"),
    },
    TableDef {
        name: "locations",
        comment: "The places of all instances",
        columns: &[
            ("code", "text PRIMARY KEY", "Code of the place"),
            ("parent", "text", "Code of the place it is part of; empty for a country"),
            ("level", "smallint NOT NULL", "0 is the country"),
            ("kind", "text NOT NULL", "What the level is called, for example district"),
            ("label", "jsonb NOT NULL", "Name by language"),
        ],
        constraint: None,
    },
    TableDef {
        name: "sync_status",
        comment: "How current the data of each instance is",
        columns: &[
            ("instance", "text PRIMARY KEY", "Name of the instance"),
            ("state", "text NOT NULL", "loading, live or failing"),
            ("cursor", "timestamptz", "Everything changed up to here was read"),
            ("newest_change", "timestamptz", "Newest change seen in the instance"),
            ("polled_at", "timestamptz", "When the instance was asked last"),
            ("lag_seconds", "bigint", "Age of the oldest change not yet published, in seconds"),
            ("cases_known", "bigint NOT NULL", "Cases read from it that are not erased"),
            ("cases_refused", "bigint NOT NULL", "Records that could not be read"),
            ("misfits", "bigint NOT NULL", "Values that did not fit their declared type"),
            ("progress", "double precision", "How much of the first load is read, 0 to 1"),
            ("last_error", "text", "The last error, without content of any record"),
            ("updated_at", "timestamptz NOT NULL", "When this row was written"),
        ],
        constraint: None,
    },
];

/// Tables that version 3 of the schema added.
pub(super) const LABELLED: &[TableDef] = &[DIMENSIONS, MADE];

/// What the dimensions are called; of schema version 3.
pub(super) const DIMENSIONS: TableDef = TableDef {
    name: "dimensions",
    comment: "What figures can be broken down by: the dimension columns of indicator_values",
    columns: &[
        ("dimension", "text PRIMARY KEY", "Name of the dimension and of its column"),
        ("title", "jsonb NOT NULL", "Title by language"),
        (
            "is_place",
            "boolean NOT NULL",
            "Whether its values are codes of the table locations; else see the table options",
        ),
    ],
    constraint: None,
};

/// What a changed catalog may drop or replace; of schema version 3.
pub(super) const MADE: TableDef = TableDef {
    name: "tonle_made",
    comment: "Internal: the wide views and the index that tonle made from the pack",
    columns: &[
        ("name", "text PRIMARY KEY", "Name of the view or index"),
        ("fingerprint", "text NOT NULL", "Fingerprint of the statements that made it"),
    ],
    constraint: None,
};

/// What stays of erased records; of schema version 5.
pub(super) const ERASED: TableDef = TableDef {
    name: "tonle_erased",
    comment: "Internal: keyed tombstones of erased records, which keep them from coming back; none tells a record",
    columns: &[
        ("tombstone", "uuid PRIMARY KEY", "Made of the record's pseudonym with the pseudonym key"),
        ("asked_at", "timestamptz NOT NULL DEFAULT now()", "When the erasure was asked for"),
        ("done_at", "timestamptz", "When no table and no state file held the record; empty before"),
    ],
    constraint: None,
};

/// Columns that schema version 3 added to `indicators`.
pub(super) const INDICATORS_3: &[ColumnDef] = &[
    (
        "periods",
        "text[] NOT NULL DEFAULT '{}'",
        "Lengths of the periods it is published for, as in period_type",
    ),
    (
        "breakdowns",
        "text[] NOT NULL DEFAULT '{}'",
        "The breakdowns it is published in: names of dimensions, total for none; wide views are called so",
    ),
    ("view_column", "text NOT NULL DEFAULT ''", "Name of its column in the wide views"),
    (
        "framework",
        "jsonb NOT NULL DEFAULT '[]'",
        "Its codes in sets of indicators of others: a list of set and code",
    ),
    ("direction", "text", "Which way is better, up or down; empty where neither is"),
];
