//! Labels and wide views in a real Postgres: what people who make tables and dashboards see.

use tonle::error::{Error, Kind};
use tonle::indicator::{
    Catalog, CellText, Column, ColumnType, DimensionText, Extract, Fingerprint, Framework,
    IndicatorText, Labels, Naming, OptionText, Value,
};
use tonle::model::{
    Cell, CellChange, Changes, Code, Day, Dictionary, Domain, Epoch, Figure, Instant, Location,
    LocationTree, Logged, Period, PeriodType, Reason,
};
use tonle::sink::{Address, EpochMeta, RunId, Settings, Sink};

use crate::support::postgres::Database;

const META: EpochMeta = EpochMeta {
    at: Instant(1_700_000_000_000),
    reason: Reason::Correction,
    today: None,
    has_tick: false,
};

/// Indicator and values of `district` and `sex` of each table number of a cell.
const CELLS: [(&str, &str, &str); 6] = [
    ("CM-01", "all", "all"),
    ("CM-01", "KH0701", "female"),
    ("CM-01", "KH07", "not_recorded"),
    ("CM-06", "all", "all"),
    ("CM-06", "KH0701", "female"),
    ("CM-06", "KH0799", "male"),
];

struct Plan;

impl Naming for Plan {
    fn cell(&self, cell: Cell) -> CellText<'_> {
        let (indicator, district, sex) = CELLS[usize::from(cell.table())];
        CellText {
            indicator,
            instance: "all",
            period_type: cell.period().period_type().name(),
            period_start: cell.period().start(),
            dimensions: vec![district, sex],
            is_share: indicator == "CM-06",
        }
    }

    fn row(&self, _: u16, _: &[u32]) -> Vec<Value<'_>> {
        vec![]
    }
}

/// The same tables after the dimension `sex` left.
struct Narrow;

impl Naming for Narrow {
    fn cell(&self, cell: Cell) -> CellText<'_> {
        let mut text = Plan.cell(cell);
        text.dimensions.truncate(1);
        text
    }

    fn row(&self, _: u16, _: &[u32]) -> Vec<Value<'_>> {
        vec![]
    }
}

fn languages(en: &str, km: &str) -> Labels {
    let texts = [("en", en), ("km", km)].into_iter().filter(|(_, text)| !text.is_empty());
    texts.map(|(language, text)| (language.to_owned(), text.to_owned())).collect()
}

fn indicator(code: &str, tables: &[&[&str]]) -> IndicatorText {
    let table = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    IndicatorText {
        code: code.into(),
        title: languages("It's a title", "ចំណងជើង"),
        definition: languages("Cases by day", ""),
        unit: "count".into(),
        kind: "flow".into(),
        periods: vec!["month".into()],
        tables: tables.iter().map(table).collect(),
        has_denominator: code == "CM-06",
        framework: vec![Framework { set: "national".into(), code: "4.8".into() }],
        direction: Some("down".into()),
        ..IndicatorText::default()
    }
}

fn option(dimension: &str, value: &str, label: Labels) -> OptionText {
    OptionText { dimension: dimension.into(), value: value.into(), position: 1, label }
}

fn catalog() -> Catalog {
    let column = |name: &str| Column {
        name: name.into(),
        column_type: ColumnType::Text,
        comment: format!("what {name} is"),
    };
    let text = |name: &str, is_place| DimensionText {
        name: name.into(),
        title: languages(name, "ចំណងជើង"),
        is_place,
    };
    let tables: [&[&str]; 2] = [&[], &["district", "sex"]];
    Catalog {
        pack: "test 1".into(),
        fingerprint: Fingerprint { packs: 1, ..Fingerprint::default() },
        dimensions: vec![column("district"), column("sex")],
        dimension_texts: vec![text("district", true), text("sex", false)],
        extracts: vec![Extract {
            table: "cases".into(),
            comment: "One row for each case".into(),
            key_column: "case_key".into(),
            columns: vec![column("sex")],
        }],
        indicators: vec![indicator("CM-01", &tables), indicator("CM-06", &tables)],
        options: vec![
            option("sex", "female", languages("Girls", "")),
            option("sex", "male", Labels::new()),
            option("sex", "not_recorded", languages("Not recorded", "")),
        ],
    }
}

fn cells() -> Changes {
    let figures = [(5, 0), (3, 0), (2, 0), (1, 4), (1, 2), (0, 2)];
    let change = |(table, (numerator, denominator))| CellChange {
        cell: Cell::new(table, Period::of(PeriodType::Month, Day(45_000)), 0, 0),
        old: Figure::default(),
        new: Figure { numerator, denominator, median_doubled: None },
        reason: None,
    };
    Changes { cells: (0..6).zip(figures).map(change).collect(), ..Changes::default() }
}

struct World {
    settings: Settings,
    sink: Sink,
    epoch: u64,
    server: Database,
}

impl World {
    /// Tables with six figures, described.
    async fn new() -> Self {
        let server = Database::fresh();
        let address = Address::parse(&server.url, None).unwrap();
        let settings = Settings { address, schema: "tonle".into() };
        let mut sink = Sink::open(settings.clone(), &catalog()).await.unwrap();
        sink.take_over(RunId(1), 77).await.unwrap();
        let logged = Logged::after_fsync(Epoch(1));
        let (_, rows) = sink.write(&logged, META, &cells(), &Plan).await.unwrap();
        assert_eq!(rows.total(), 6);
        let mut world = Self { settings, sink, epoch: 1, server };
        world.describe().await;
        world
    }

    async fn describe(&mut self) {
        let mut dictionary = Dictionary::default();
        let mut code = |text: &str| dictionary.intern(Domain::Location, text).unwrap();
        let place = |code, parent: Option<Code>, level, kind: &str, names| Location {
            code,
            parent,
            level,
            kind: kind.into(),
            names,
        };
        let (province, district) = (code("KH07"), code("KH0701"));
        let mut places = LocationTree::default();
        places.extend([
            place(province, None, 1, "province", languages("Kampot", "កំពត")),
            place(district, Some(province), 2, "district", languages("Angkor Chey", "អង្គរជ័យ")),
        ]);
        let labels = [
            option("sex", "female", languages("F", "ស្រី")),
            option("sex", "female", languages("", "នារី")),
            option("sex", "male", languages("Male", "ប្រុស")),
        ];
        self.sink.describe(&catalog(), &places, &dictionary, &labels).await.unwrap();
    }

    /// Starts anew with another catalog.
    async fn change(&mut self, catalog: &Catalog, naming: &dyn Naming) -> Result<(), Error> {
        self.sink = Sink::open(self.settings.clone(), catalog).await?;
        self.sink.take_over(RunId(u128::from(self.epoch) + 1), 77).await?;
        let logged = Logged::after_fsync(Epoch(self.epoch + 1));
        let (_, counts) = self.sink.reconcile(&logged, META, &cells(), naming).await?;
        assert_eq!(counts.compared, 6);
        self.epoch += 1;
        Ok(())
    }

    fn query(&self, sql: &str) -> String {
        self.server.query(&format!("SET search_path = tonle; {sql}"))
    }

    fn columns(&self, view: &str) -> String {
        self.query(&format!(
            "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
              WHERE attrelid = to_regclass('{view}') AND attnum > 0"
        ))
    }
}

#[tokio::test]
async fn a_wide_view_has_a_row_for_each_group_and_a_column_for_each_indicator() {
    let world = World::new().await;
    assert_eq!(world.query("SELECT * FROM v_total"), "all|month|2023-03-01|5|0.25|1|4");
    let head = "instance period_type period_start";
    let figures = "cm_01 cm_06 cm_06_n cm_06_d";
    assert_eq!(world.columns("v_total"), format!("{head} {figures}"));
    assert_eq!(
        world.columns("v_district_sex"),
        format!("{head} district district_kind district_label sex sex_label {figures}")
    );
    // What an indicator does not say is empty; a place or option without a label is its own label.
    let rows = "SELECT district, district_kind, district_label, sex, sex_label, cm_01, cm_06, cm_06_n, cm_06_d
                  FROM v_district_sex WHERE period_type = 'month' ORDER BY district";
    assert_eq!(
        world.query(rows),
        "KH07|province|Kampot|not_recorded|Not recorded|2|||\n\
         KH0701|district|Angkor Chey|female|Girls|3|0.5|1|2\n\
         KH0799||KH0799|male|Male||0|0|2"
    );
}

#[tokio::test]
async fn labels_come_in_every_language_that_the_pack_or_the_servers_have() {
    let world = World::new().await;
    let option = "SELECT label->>'en', label->>'km' FROM options WHERE value = ";
    // The label of the pack wins; the first server that has the language fills it.
    assert_eq!(world.query(&format!("{option} 'female'")), "Girls|ស្រី");
    assert_eq!(world.query(&format!("{option} 'male'")), "Male|ប្រុស");
    let dictionary = "SELECT entry, meaning, by_language->>'km' FROM data_dictionary WHERE name = ";
    assert_eq!(world.query(&format!("{dictionary} 'female'")), "option|Girls|ស្រី");
    assert_eq!(world.query(&format!("{dictionary} 'CM-01'")), "indicator|Cases by day|ចំណងជើង");
    let column = format!("{dictionary} 'sex' AND table_name = 'v_district_sex'");
    assert_eq!(world.query(&column), "column|what sex is|ចំណងជើង");
    let place = "SELECT parent, level, kind, label->>'km' FROM locations WHERE code = 'KH0701'";
    assert_eq!(world.query(place), "KH07|2|district|អង្គរជ័យ");
    let indicator =
        "SELECT title->>'km', periods, breakdowns, view_column, framework->0->>'code', direction
                       FROM indicators WHERE indicator = 'CM-06'";
    assert_eq!(world.query(indicator), "ចំណងជើង|{month}|{total,district_sex}|cm_06|4.8|down");
    let dimensions = "SELECT string_agg(concat_ws(' ', dimension, title->>'km', is_place), ', ') FROM dimensions";
    assert_eq!(world.query(dimensions), "district ចំណងជើង t, sex ចំណងជើង f");
}

#[tokio::test]
async fn no_table_view_or_column_is_without_a_comment() {
    let world = World::new().await;
    let silent = "SELECT c.relname, a.attname FROM pg_class c
          LEFT JOIN LATERAL (SELECT 0::int2 AS attnum, NULL::name AS attname UNION ALL
               SELECT attnum, attname FROM pg_attribute
                WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) a ON true
         WHERE c.relnamespace = 'tonle'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
           AND coalesce((SELECT description FROM pg_description
                          WHERE objoid = c.oid AND classoid = 'pg_class'::regclass
                            AND objsubid = a.attnum), '') = ''";
    assert_eq!(world.query(silent), "");
    let unnamed = "SELECT count(*) FROM data_dictionary WHERE coalesce(meaning, '') = ''
                      OR by_language = '{}'";
    assert_eq!(world.query(unnamed), "0");
    let entries = "SELECT string_agg(DISTINCT entry, ' ') FROM data_dictionary";
    assert_eq!(world.query(entries), "column indicator option table view");
    let says = "SELECT col_description('v_total'::regclass, attnum) FROM pg_attribute
                 WHERE attrelid = 'v_total'::regclass AND attname = 'cm_01'";
    let expected = "CM-01: It's a title. Cases by day. Published by month; empty for other periods, and where \
                    nothing was counted, which is 0";
    assert_eq!(world.query(says), expected);
}

#[tokio::test]
async fn a_new_indicator_comes_at_the_right_end_and_breaks_nobody() {
    let mut world = World::new().await;
    world.query(
        "CREATE SCHEMA mine; CREATE VIEW mine.totals AS SELECT cm_01, cm_06_d FROM v_total;
         CREATE ROLE reader; GRANT SELECT ON v_total TO reader; CREATE VIEW v_mine AS SELECT 1 AS one",
    );
    let untouched = world.query("SELECT xmin FROM pg_class WHERE relname = 'v_district_sex'");
    let mut wider = catalog();
    wider.fingerprint.packs = 2;
    wider.indicators.insert(0, indicator("4.8", &[&[], &["district"]]));
    world.change(&wider, &Plan).await.unwrap();
    let head = "instance period_type period_start";
    assert_eq!(world.columns("v_total"), format!("{head} cm_01 cm_06 cm_06_n cm_06_d i_4_8"));
    assert_eq!(
        world.columns("v_district"),
        format!("{head} district district_kind district_label i_4_8")
    );
    assert_eq!(world.query("SELECT * FROM mine.totals"), "5|4");
    assert_eq!(world.query("SELECT has_table_privilege('reader', 'v_total', 'SELECT')"), "t");
    let now = "SELECT xmin FROM pg_class WHERE relname = 'v_district_sex'";
    assert_eq!(world.query(now), untouched, "a view that stays as it is is not made again");
    // The same catalog once more changes nothing, and a breakdown that is gone takes its view along.
    let made = "SELECT string_agg(concat(name, fingerprint), ' ' ORDER BY name) FROM tonle_made";
    let before = world.query(made);
    world.change(&wider, &Plan).await.unwrap();
    assert_eq!(world.query(made), before);
    wider.fingerprint.packs = 3;
    wider.indicators[0].tables.pop();
    world.change(&wider, &Plan).await.unwrap();
    assert_eq!(world.columns("v_district"), "");
    assert_eq!(world.columns("v_mine"), "one", "what tonle did not make stays");
    world.query("DROP OWNED BY reader; DROP ROLE reader");
}

#[tokio::test]
async fn a_view_of_somebody_else_is_named_before_anything_changes() {
    let mut world = World::new().await;
    world.query("CREATE SCHEMA mine; CREATE VIEW mine.shares AS SELECT cm_06_n FROM v_total");
    let mut fewer = catalog();
    fewer.fingerprint.packs = 2;
    fewer.indicators.pop();
    let error = world.change(&fewer, &Plan).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    let text = error.to_string();
    assert!(text.contains("v_total") && text.contains("mine.shares"), "{text}");
    assert_eq!(world.query("SELECT * FROM mine.shares"), "1");
    world.query("DROP VIEW mine.shares");
    world.change(&fewer, &Plan).await.unwrap();
    assert_eq!(world.columns("v_total"), "instance period_type period_start cm_01");
    // And a name that is taken is left to whoever took it.
    world.query("CREATE TABLE v_sex (mine int)");
    fewer.fingerprint.packs = 3;
    fewer.indicators.push(indicator("CM-02", &[&["sex"]]));
    let error = world.change(&fewer, &Plan).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("v_sex"), "{error}");
    assert_eq!(world.columns("v_sex"), "mine");
}

#[tokio::test]
async fn a_dimension_that_leaves_takes_its_views_and_leaves_the_others() {
    let mut world = World::new().await;
    world.query("CREATE SCHEMA mine; CREATE VIEW mine.totals AS SELECT * FROM v_total");
    let mut narrow = catalog();
    narrow.fingerprint.packs = 2;
    narrow.dimensions.pop();
    narrow.dimension_texts.pop();
    for indicator in &mut narrow.indicators {
        indicator.tables[1].pop();
    }
    world.change(&narrow, &Narrow).await.unwrap();
    assert_eq!(world.columns("v_district_sex"), "");
    let rows = "SELECT district, cm_01, cm_06 FROM v_district ORDER BY district";
    assert_eq!(world.query(rows), "KH07|2|\nKH0701|3|0.5\nKH0799||0");
    assert_eq!(world.query("SELECT cm_01 FROM mine.totals"), "5");
}

#[tokio::test]
async fn tables_of_an_older_program_get_their_views_with_the_labels() {
    let mut world = World::new().await;
    world.query(
        "DROP VIEW v_total, v_district_sex; DROP INDEX indicator_values_breakdown;
         DELETE FROM tonle_made",
    );
    world.describe().await;
    assert_eq!(world.query("SELECT cm_01 FROM v_total"), "5");
    assert_eq!(world.query("SELECT count(*) FROM tonle_made"), "3");
}

#[tokio::test]
async fn a_view_reads_only_the_rows_of_its_breakdown() {
    let world = World::new().await;
    world.query(
        "INSERT INTO indicator_values (cell, indicator, instance, period_type, period_start, district, sex,
                                       numerator, epoch, updated_at)
         SELECT gen_random_uuid(), 'CM-01', 'all', 'month', date '2000-01-01' + n % 300, 'D' || n / 300,
                'female', 1, 1, now() FROM generate_series(1, 30000) n;
         ANALYZE indicator_values",
    );
    let plan = |sql: &str| world.query(&format!("EXPLAIN {sql}"));
    let total = plan("SELECT period_start, cm_01 FROM v_total WHERE period_type = 'month'");
    assert!(total.contains("indicator_values_breakdown"), "{total}");
    let month = plan(
        "SELECT district, sex, cm_01 FROM v_district_sex
          WHERE period_type = 'month' AND period_start = '2000-02-01' AND instance = 'all'",
    );
    assert!(month.contains("indicator_values_breakdown"), "{month}");
    assert!(!month.contains("options"), "labels that nobody asks for cost nothing: {month}");
}
