//! The sink against a real Postgres.

use std::sync::atomic::{AtomicU32, Ordering};

use tonle::error::Kind;
use tonle::indicator::{
    Catalog, CellText, Column, ColumnType, Extract, Fingerprint, IndicatorText, Labels, Naming,
    OptionText, Value,
};
use tonle::model::{
    Cell, CellChange, Changes, Code, Day, Dictionary, Domain, Epoch, ExtractChange, Figure,
    Instant, Location, LocationTree, Logged, Period, PeriodType, Reason, RecordKey, Tally,
    Tombstone,
};
use tonle::sink::{Address, EpochMeta, InstanceStatus, RunId, Settings, Sink, check};

use crate::support::postgres::Database;

/// A plan small enough to see through: tables 0 and 1 are counts, 2 is a share; the dimensions hold sex.
struct Plan {
    sexes: [&'static str; 3],
    dimension_count: usize,
}

const PLAN: Plan = Plan { sexes: ["all", "female", "male"], dimension_count: 2 };

impl Naming for Plan {
    fn cell(&self, cell: Cell) -> CellText<'_> {
        let mut dimensions = vec!["all"; self.dimension_count];
        dimensions[0] = self.sexes[(cell.dimensions() % 3) as usize];
        CellText {
            indicator: ["CM-01", "CM-02", "SV-01"][usize::from(cell.table())],
            instance: "kampot",
            period_type: cell.period().period_type().name(),
            period_start: cell.period().start(),
            dimensions,
            is_share: cell.table() == 2,
        }
    }

    fn row(&self, _: u16, row: &[u32]) -> Vec<Value<'_>> {
        vec![Value::Text(self.sexes[row[0] as usize]), Value::Integer(row[1] as i32)]
    }
}

fn column(name: &str, column_type: ColumnType) -> Column {
    Column { name: name.into(), column_type, comment: format!("what's in {name}") }
}

fn catalog() -> Catalog {
    Catalog {
        pack: "test 1".into(),
        fingerprint: Fingerprint {
            packs: u64::MAX - 7,
            instances: u64::MAX,
            places: 3,
            agencies: 1,
        },
        dimensions: vec![column("sex", ColumnType::Text), column("age_group", ColumnType::Text)],
        extracts: vec![Extract {
            table: "cases".into(),
            comment: "One row for each case".into(),
            key_column: "case_key".into(),
            columns: vec![column("sex", ColumnType::Text), column("age", ColumnType::Integer)],
        }],
        ..Catalog::default()
    }
}

/// A database for each test.
struct World {
    settings: Settings,
    sink: Sink,
    db: tokio_postgres::Client,
    server: Database,
}

static SCHEMAS: AtomicU32 = AtomicU32::new(0);
const META: EpochMeta = EpochMeta {
    at: Instant(1_700_000_000_000),
    reason: Reason::Correction,
    today: None,
    has_tick: false,
};

impl World {
    async fn new() -> Self {
        let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
        let server = Database::fresh();
        let address = Address::parse(&server.url, None).unwrap();
        let settings = Settings { address, schema: format!("test \"{number}\"; --") };
        let mut sink = Sink::open(settings.clone(), &catalog()).await.unwrap();
        assert_eq!(sink.take_over(RunId(1), 77).await.unwrap(), None);
        Self { settings, sink, db: client(&server.url).await, server }
    }

    async fn write(&mut self, epoch: u64, changes: &Changes) -> tonle::error::Result<u64> {
        let logged = Logged::after_fsync(Epoch(epoch));
        let (durable, rows) = self.sink.write(&logged, META, changes, &PLAN).await?;
        assert_eq!(durable.epoch(), Epoch(epoch));
        Ok(rows.total())
    }

    /// The first column of the first row, as text.
    async fn text(&self, sql: &str) -> String {
        let schema = format!("\"{}\"", self.settings.schema.replace('"', "\"\""));
        let sql = sql.replace("{s}", &schema);
        let row = self.db.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }
}

async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn cell(table: u16, month: u32, sex: u32) -> Cell {
    Cell::new(table, Period::of(PeriodType::Month, Day(45_000 + 31 * month)), 1, sex)
}

fn figure(numerator: i64, denominator: i64) -> Figure {
    Figure { numerator, denominator, median_doubled: None }
}

fn change(cell: Cell, old: (i64, i64), new: (i64, i64)) -> CellChange {
    CellChange { cell, old: figure(old.0, old.1), new: figure(new.0, new.1), reason: None }
}

fn row(key: u128, existed: bool, row: Option<[u32; 2]>) -> ExtractChange {
    let row = row.map(|row| row.to_vec().into_boxed_slice());
    ExtractChange { extract: 0, key: RecordKey(key), row, existed }
}

fn changes(cells: Vec<CellChange>, rows: Vec<ExtractChange>) -> Changes {
    Changes { cells, rows, tally: Tally { added: 1, ..Tally::default() }, ..Changes::default() }
}

fn first() -> Changes {
    let cells = vec![
        change(cell(0, 0, 0), (0, 0), (5, 0)),
        change(cell(0, 0, 1), (0, 0), (3, 0)),
        change(cell(2, 0, 0), (0, 0), (1, 4)),
    ];
    changes(cells, vec![row(1, false, Some([1, 7])), row(2, false, Some([2, 9]))])
}

#[tokio::test]
async fn an_epoch_writes_exactly_its_rows() {
    let mut world = World::new().await;
    assert_eq!(world.write(1, &first()).await.unwrap(), 5);
    let second = changes(
        vec![
            change(cell(0, 0, 0), (5, 0), (6, 0)),
            change(cell(0, 0, 1), (3, 0), (0, 0)),
            change(cell(1, 0, 2), (0, 0), (1, 0)),
            change(cell(2, 0, 0), (1, 4), (0, 4)),
        ],
        vec![row(1, true, None), row(2, true, Some([1, 10])), row(3, false, Some([0, 1]))],
    );
    assert_eq!(world.write(2, &second).await.unwrap(), 7);
    let values = world
        .text(
            "SELECT string_agg(concat_ws(' ', indicator, period_type, period_start, sex, age_group,
             numerator, denominator, value, epoch, updated_at AT TIME ZONE 'UTC'), ', ' ORDER BY indicator)
             FROM {s}.indicator_values",
        )
        .await;
    assert_eq!(
        values,
        "CM-01 month 2023-03-01 all all 6 6 2 2023-11-14 22:13:20, \
         CM-02 month 2023-03-01 male all 1 1 2 2023-11-14 22:13:20, \
         SV-01 month 2023-03-01 all all 0 4 0 2 2023-11-14 22:13:20"
    );
    let rows = "SELECT string_agg(concat_ws(' ', right(case_key::text, 1), sex, age, epoch), ', '
                ORDER BY case_key) FROM {s}.cases";
    assert_eq!(world.text(rows).await, "2 female 10 2, 3 all 1 2");
    let epochs = "SELECT string_agg(concat_ws(' ', epoch, reason, cases_changed, cells_changed,
                  rows_inserted, rows_updated, rows_deleted), ', ' ORDER BY epoch) FROM {s}.epochs";
    assert_eq!(world.text(epochs).await, "1 correction 1 3 5 0 0, 2 correction 1 4 2 3 2");
}

#[tokio::test]
async fn every_change_begins_where_the_last_one_ended() {
    let mut world = World::new().await;
    world.write(1, &first()).await.unwrap();
    for (epoch, old, new) in [(2, (5, 0), (6, 0)), (3, (6, 0), (0, 0)), (7, (0, 0), (2, 0))] {
        let changes = changes(vec![change(cell(0, 0, 0), old, new)], vec![]);
        world.write(epoch, &changes).await.unwrap();
    }
    let broken = "SELECT count(*) FROM (
        SELECT (old_numerator, old_denominator) IS DISTINCT FROM
               lag((new_numerator, new_denominator), 1, (NULL::bigint, NULL::bigint))
               OVER (PARTITION BY cell ORDER BY epoch) AS is_broken FROM {s}.changes) c WHERE is_broken";
    assert_eq!(world.text(broken).await, "0");
    assert_eq!(world.text("SELECT count(*) FROM {s}.changes").await, "6");
    let last = "SELECT count(*) FROM {s}.indicator_values v JOIN
        (SELECT DISTINCT ON (cell) * FROM {s}.changes ORDER BY cell, epoch DESC) c USING (cell)
        WHERE (v.numerator, v.denominator) IS NOT DISTINCT FROM (c.new_numerator, c.new_denominator)";
    assert_eq!(world.text(last).await, "3");
}

#[tokio::test]
async fn the_same_epoch_is_written_once() {
    let mut world = World::new().await;
    assert_eq!(world.write(1, &first()).await.unwrap(), 5);
    assert_eq!(world.write(1, &first()).await.unwrap(), 0);
    assert_eq!(world.text("SELECT count(*) FROM {s}.epochs").await, "1");
}

#[tokio::test]
async fn an_epoch_that_a_lost_connection_committed_after_all_is_accepted() {
    let mut world = World::new().await;
    world.write(1, &first()).await.unwrap();
    let late = "UPDATE {s}.tonle_pipeline SET epoch = 2";
    let schema = format!("\"{}\"", world.settings.schema.replace('"', "\"\""));
    world.db.batch_execute(&late.replace("{s}", &schema)).await.unwrap();
    let next = changes(vec![change(cell(0, 0, 0), (5, 0), (6, 0))], vec![]);
    assert_eq!(world.write(2, &next).await.unwrap(), 0);
    assert_eq!(world.write(3, &next).await.unwrap(), 1);
}

#[tokio::test]
async fn listeners_hear_the_epoch_and_the_tables() {
    let mut world = World::new().await;
    let url = &world.server.url;
    let (listener, mut connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                let _ = heard.send(notification.payload().to_owned());
            }
        }
    });
    listener.batch_execute("LISTEN tonle").await.unwrap();
    world.write(987_654_321, &first()).await.unwrap();
    let expected = r#"{"epoch":987654321,"tables":["indicator_values","cases"]}"#;
    let wait = async { while hearing.recv().await.unwrap() != expected {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait).await.unwrap();
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_nothing_is_written_twice() {
    let mut world = World::new().await;
    world.write(1, &first()).await.unwrap();
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE application_name = 'tonle' AND query LIKE '%test \"\"' || $1 || '\"\"%'";
    let number = world.settings.schema.chars().filter(char::is_ascii_digit).collect::<String>();
    // The last statement of the connection may be a COMMIT: mark it with the name of the schema.
    world.sink.position().await.unwrap();
    let killed: i64 = world.db.query_one(kill, &[&number]).await.unwrap().get(0);
    assert_eq!(killed, 1);
    let next = changes(vec![change(cell(0, 0, 0), (5, 0), (6, 0))], vec![]);
    let mut outcomes = vec![];
    for _ in 0..3 {
        outcomes.push(world.write(2, &next).await.map_err(|error| error.kind()));
    }
    outcomes.retain(|outcome| *outcome != Err(Kind::Unavailable));
    assert!(outcomes.contains(&Ok(1)), "{outcomes:?}");
    assert!(outcomes.iter().skip(1).all(|o| *o == Ok(0)), "{outcomes:?}");
    assert_eq!(world.text("SELECT max(epoch) FROM {s}.epochs").await, "2");
}

#[tokio::test]
async fn a_copy_that_was_replaced_writes_nothing() {
    let mut world = World::new().await;
    world.write(1, &first()).await.unwrap();
    let mut other = Sink::open(world.settings.clone(), &catalog()).await.unwrap();
    let position = other.take_over(RunId(2), 77).await.unwrap().unwrap();
    assert_eq!((position.epoch, position.fingerprint), (Epoch(1), catalog().fingerprint));
    let next = changes(vec![change(cell(0, 0, 0), (5, 0), (6, 0))], vec![row(1, true, None)]);
    let error = world.write(2, &next).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("taken over"), "{error}");
    assert_eq!(world.text("SELECT sum(numerator) FROM {s}.indicator_values").await, "9");
    let logged = Logged::after_fsync(Epoch(2));
    let (_, rows) = other.write(&logged, META, &next, &PLAN).await.unwrap();
    assert_eq!(rows.total(), 2);
    assert!(world.write(3, &changes(vec![], vec![])).await.is_err());
}

#[tokio::test]
async fn a_copy_that_was_replaced_does_not_take_the_tables_back() {
    let mut world = World::new().await;
    world.write(1, &first()).await.unwrap();
    let mut again = Sink::open(world.settings.clone(), &catalog()).await.unwrap();
    assert_eq!(again.keep(RunId(1), 77).await.unwrap().unwrap().epoch, Epoch(1));
    let mut other = Sink::open(world.settings.clone(), &catalog()).await.unwrap();
    other.take_over(RunId(2), 77).await.unwrap();
    let error = again.keep(RunId(1), 77).await.unwrap_err();
    assert!(error.to_string().contains("taken over"), "{error}");
    let (tree, dictionary) = (LocationTree::default(), Dictionary::default());
    let described = world.sink.describe(&catalog(), &tree, &dictionary, &[]).await;
    assert!(described.unwrap_err().to_string().contains("taken over"));
    let run = world.text("SELECT right(run_id::text, 1) FROM {s}.tonle_pipeline").await;
    assert_eq!(run, "2");
}

#[tokio::test]
async fn a_copy_that_was_replaced_writes_no_tombstone() {
    let mut world = World::new().await;
    world.write(1, &first()).await.unwrap();
    world.sink.ask_erasures(&[Tombstone(1)]).await.unwrap();
    let mut other = Sink::open(world.settings.clone(), &catalog()).await.unwrap();
    other.take_over(RunId(2), 78).await.unwrap();
    world.sink.erasures_done(&[Tombstone(1)], 77).await.unwrap();
    world.sink.keep_erasures(&[Tombstone(2)]).await.unwrap();
    world.sink.ask_erasures(&[Tombstone(3)]).await.unwrap();
    let all = "SELECT string_agg(right(tombstone::text, 1) || (done_at IS NULL), ' ') FROM {s}.tonle_erased";
    assert_eq!(world.text(all).await, "1true");
    // Nor does one that owns the tables say so for the state of another.
    other.erasures_done(&[Tombstone(1)], 78).await.unwrap();
    assert_eq!(world.text(all).await, "1true");
    other.erasures_done(&[Tombstone(1)], 77).await.unwrap();
    assert_eq!(world.text(all).await, "1false");
}

#[tokio::test]
async fn a_server_that_may_forget_what_it_committed_is_told_not_to() {
    let world = World::new().await;
    let off = "ALTER DATABASE {d} SET synchronous_commit = off";
    let name = world.text("SELECT current_database()").await;
    world.db.batch_execute(&off.replace("{d}", &format!("\"{name}\""))).await.unwrap();
    let plain = client(&world.server.url).await;
    let setting = "SELECT current_setting('synchronous_commit')";
    let of = async |db: &tokio_postgres::Client| {
        db.query_one(setting, &[]).await.unwrap().get::<_, String>(0)
    };
    assert_eq!(of(&plain).await, "off", "it is what a new connection gets");
    // A trigger tells what the connections of the sink have.
    let mut sink = Sink::open(world.settings.clone(), &catalog()).await.unwrap();
    let schema = format!("\"{}\"", world.settings.schema.replace('"', "\"\""));
    world
        .db
        .batch_execute(&format!(
            "CREATE TABLE {schema}.seen (setting text);
             CREATE FUNCTION {schema}.see() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN INSERT INTO {schema}.seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$;
             CREATE TRIGGER see BEFORE INSERT OR UPDATE ON {schema}.tonle_erased
               FOR EACH ROW EXECUTE FUNCTION {schema}.see()"
        ))
        .await
        .unwrap();
    sink.ask_erasures(&[Tombstone(1)]).await.unwrap();
    assert_eq!(world.text("SELECT string_agg(setting, ' ') FROM {s}.seen").await, "on");
}

#[tokio::test]
async fn the_last_of_many_that_take_over_at_once_may_write() {
    let world = World::new().await;
    // Somebody holds the row, as an epoch that is being written does; all wait for it.
    let mut holder = client(&world.server.url).await;
    let schema = format!("\"{}\"", world.settings.schema.replace('"', "\"\""));
    let held = holder.transaction().await.unwrap();
    held.execute(&format!("SELECT FROM {schema}.tonle_pipeline FOR UPDATE"), &[]).await.unwrap();
    let mut waiting = Vec::new();
    for run in 2..6 {
        let mut sink = Sink::open(world.settings.clone(), &catalog()).await.unwrap();
        waiting.push(tokio::spawn(async move {
            sink.take_over(RunId(run), 77).await.unwrap();
            (run, sink)
        }));
    }
    held.commit().await.unwrap();
    let mut kept = Vec::new();
    for task in waiting {
        let (run, mut sink) = task.await.unwrap();
        if sink.keep(RunId(run), 77).await.is_ok() {
            kept.push(run);
        }
    }
    let run = world.text("SELECT right(run_id::text, 1) FROM {s}.tonle_pipeline").await;
    assert!(kept.iter().any(|kept| kept.to_string() == run), "{kept:?} {run}");
}

#[tokio::test]
async fn tables_that_hold_something_else_are_left_alone() {
    let mut world = World::new().await;
    world.write(1, &first()).await.unwrap();
    let wrong = [
        changes(vec![change(cell(0, 0, 0), (4, 0), (6, 0))], vec![]),
        changes(vec![change(cell(0, 5, 0), (4, 0), (0, 0))], vec![]),
        changes(vec![change(cell(0, 0, 1), (0, 0), (6, 0))], vec![]),
        changes(vec![], vec![row(9, true, Some([0, 0]))]),
        changes(vec![], vec![row(9, true, None)]),
        changes(vec![], vec![row(1, false, Some([0, 0]))]),
    ];
    for changes in wrong {
        let error = world.write(2, &changes).await.unwrap_err();
        assert_eq!(error.kind(), Kind::DataDiffers, "{error}");
    }
    assert_eq!(world.text("SELECT epoch FROM {s}.tonle_pipeline").await, "1");
    assert_eq!(world.text("SELECT count(*) FROM {s}.epochs").await, "1");
    assert_eq!(world.text("SELECT count(*) FROM {s}.changes").await, "3");
    let right = changes(vec![change(cell(0, 0, 0), (5, 0), (6, 0))], vec![]);
    assert_eq!(world.write(2, &right).await.unwrap(), 1);
}

/// What the tables hold after [`first`], with one more cell, one cell less and one changed.
fn nearly_first() -> Changes {
    let cells = vec![
        change(cell(0, 0, 0), (0, 0), (8, 0)),
        change(cell(1, 3, 2), (0, 0), (1, 0)),
        change(cell(2, 0, 0), (0, 0), (1, 4)),
    ];
    changes(cells, vec![row(1, false, Some([1, 7])), row(2, false, Some([2, 10]))])
}

async fn reconcile(sink: &mut Sink, epoch: u64, complete: &Changes, plan: &Plan) -> [u64; 6] {
    let logged = Logged::after_fsync(Epoch(epoch));
    let meta = EpochMeta { reason: Reason::Reconcile, ..META };
    let (durable, counts) = sink.reconcile(&logged, meta, complete, plan).await.unwrap();
    assert_eq!(durable.epoch(), Epoch(epoch));
    let (c, r) = (counts.cells, counts.rows);
    [c.inserted, c.updated, c.deleted, r.inserted, r.updated, r.deleted]
}

#[tokio::test]
async fn a_reconcile_writes_only_what_differs() {
    let mut world = World::new().await;
    assert_eq!(reconcile(&mut world.sink, 1, &first(), &PLAN).await, [3, 0, 0, 2, 0, 0]);
    assert_eq!(reconcile(&mut world.sink, 2, &first(), &PLAN).await, [0; 6]);
    assert_eq!(reconcile(&mut world.sink, 5, &nearly_first(), &PLAN).await, [1, 1, 1, 0, 1, 0]);
    let log = "SELECT string_agg(concat_ws(' ', indicator, coalesce(old_numerator, -1),
               coalesce(new_numerator, -1), reason), ', ' ORDER BY old_numerator)
               FROM {s}.changes WHERE epoch = 5";
    let expected = "CM-01 3 -1 reconcile, CM-01 5 8 reconcile, CM-02 -1 1 reconcile";
    assert_eq!(world.text(log).await, expected);
    let untouched = "SELECT string_agg(indicator, ' ') FROM {s}.indicator_values WHERE epoch = 1";
    assert_eq!(world.text(untouched).await, "SV-01");
    let next = changes(vec![change(cell(0, 0, 0), (8, 0), (9, 0))], vec![row(2, true, None)]);
    assert_eq!(world.write(6, &next).await.unwrap(), 2);
    let late = Logged::after_fsync(Epoch(6));
    assert!(world.sink.reconcile(&late, META, &first(), &PLAN).await.is_err());
}

#[tokio::test]
async fn somebody_elses_edit_is_put_right() {
    let mut world = World::new().await;
    world.write(1, &first()).await.unwrap();
    let edit =
        "WITH a AS (UPDATE {s}.indicator_values SET sex = 'male' WHERE numerator = 3 RETURNING 1),
                b AS (DELETE FROM {s}.cases WHERE age = 7 RETURNING 1) SELECT count(*) FROM a, b";
    let schema = format!("\"{}\"", world.settings.schema.replace('"', "\"\""));
    world.db.batch_execute(&edit.replace("{s}", &schema)).await.unwrap();
    let found = world.sink.compare(&first(), None, &PLAN).await.unwrap();
    assert_eq!((found.equal, found.different, found.missing, found.surplus), (3, 1, 1, 0));
    assert!(found.examples[0].starts_with("different: CM-01 kampot month 2023-03-01 male all 3"));
    assert_eq!(reconcile(&mut world.sink, 2, &first(), &PLAN).await, [0, 1, 0, 1, 0, 0]);
    assert!(world.sink.compare(&first(), None, &PLAN).await.unwrap().is_equal());
    // The measure did not change, so there is no change to tell about.
    assert_eq!(world.text("SELECT count(*) FROM {s}.changes WHERE epoch = 2").await, "0");
}

#[tokio::test]
async fn a_new_catalog_changes_columns_and_rows_together() {
    let mut world = World::new().await;
    world.write(1, &first()).await.unwrap();
    let mut wider = catalog();
    wider.fingerprint.packs = 8;
    wider.dimensions[1].name = "a \"quoted\"; DROP TABLE epochs; --".into();
    wider.dimensions.push(column("district", ColumnType::Text));
    wider.extracts[0].columns[1].name = "age in years".into();
    wider.extracts.push(Extract {
        table: "services; --".into(),
        comment: "Services".into(),
        key_column: "service_key".into(),
        columns: vec![column("case_key", ColumnType::Key)],
    });
    let mut sink = Sink::open(world.settings.clone(), &wider).await.unwrap();
    let position = sink.take_over(RunId(2), 77).await.unwrap().unwrap();
    assert_eq!(position.fingerprint, catalog().fingerprint);
    assert!(!sink.follows_catalog());
    let logged = Logged::after_fsync(Epoch(2));
    let error = sink.write(&logged, META, &first(), &PLAN).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DataDiffers);
    let plan = Plan { dimension_count: 3, ..PLAN };
    assert_eq!(reconcile(&mut sink, 2, &first(), &plan).await, [0, 0, 0, 0, 2, 0]);
    assert!(sink.follows_catalog());
    let columns = "SELECT string_agg(column_name, ', ' ORDER BY ordinal_position)
                   FROM information_schema.columns WHERE table_schema = 'x' AND table_name = ";
    let columns = columns.replace('x', &world.settings.schema);
    assert_eq!(
        world.text(&format!("{columns} 'indicator_values'")).await,
        "cell, indicator, instance, period_type, period_start, sex, numerator, denominator, median, \
         value, revision, provisional, epoch, updated_at, a \"quoted\"; DROP TABLE epochs; --, district"
    );
    let cases = world.text(&format!("{columns} 'cases'")).await;
    assert_eq!(cases, "case_key, epoch, updated_at, sex, age in years");
    assert_eq!(
        world.text(&format!("{columns} 'services; --'")).await,
        "service_key, epoch, updated_at, case_key"
    );
    let next = changes(vec![change(cell(0, 0, 0), (5, 0), (9, 0))], vec![row(2, true, None)]);
    let logged = Logged::after_fsync(Epoch(3));
    assert_eq!(sink.write(&logged, META, &next, &plan).await.unwrap().1.total(), 2);
    let meaning = "SELECT meaning FROM {s}.data_dictionary WHERE name = 'district'";
    assert_eq!(world.text(meaning).await, "what's in district");
}

#[tokio::test]
async fn every_table_and_column_says_what_it_means() {
    let mut world = World::new().await;
    world.write(1, &first()).await.unwrap();
    let silent = "SELECT string_agg(table_name || '.' || coalesce(name, ''), ', ')
                  FROM {s}.data_dictionary WHERE coalesce(meaning, '') = ''";
    assert_eq!(world.text(silent).await, "");
    assert!(
        world.text("SELECT count(*) FROM {s}.data_dictionary").await.parse::<u32>().unwrap() > 60
    );
}

#[tokio::test]
async fn descriptions_are_written_when_they_differ() {
    let mut world = World::new().await;
    let en = |text: &str| Labels::from([("en".into(), text.into())]);
    let indicator = IndicatorText {
        code: "CM-01".into(),
        title: en("New cases"),
        definition: en("Cases by day of registration"),
        unit: "count".into(),
        kind: "flow".into(),
        not_additive_over: vec!["district".into()],
        pack: "core".into(),
        ..IndicatorText::default()
    };
    let option = |value: &str, label: &str| OptionText {
        dimension: "sex".into(),
        value: value.into(),
        position: 1,
        label: en(label),
    };
    let mut catalog = Catalog {
        indicators: vec![indicator],
        options: vec![option("female", "Girl")],
        ..catalog()
    };
    let mut dictionary = Dictionary::default();
    let (country, province) = (
        dictionary.intern(Domain::Location, "KH").unwrap(),
        dictionary.intern(Domain::Location, "KH07").unwrap(),
    );
    let place = |code, parent: Option<Code>, level, kind: &str, name: &str| Location {
        code,
        parent,
        level,
        kind: kind.into(),
        names: en(name),
    };
    let mut places = LocationTree::default();
    places.extend([
        place(country, None, 0, "country", "Cambodia"),
        place(province, Some(country), 1, "province", "Kampot"),
    ]);
    let labels = [option("female", "F"), option("other", "Other")];
    for expected in [5, 0] {
        let counts = world.sink.describe(&catalog, &places, &dictionary, &labels).await.unwrap();
        assert_eq!(counts.total(), expected);
    }
    catalog.options[0].label = en("Girls");
    let counts = world.sink.describe(&catalog, &places, &dictionary, &[]).await.unwrap();
    assert_eq!((counts.inserted, counts.updated, counts.deleted), (0, 1, 1));
    let label = "SELECT label->>'en' FROM {s}.options WHERE value = 'female'";
    assert_eq!(world.text(label).await, "Girls");
    let place = "SELECT concat_ws(' ', parent, level, kind, label->>'en') FROM {s}.locations WHERE code = 'KH07'";
    assert_eq!(world.text(place).await, "KH 1 province Kampot");
    let indicator = "SELECT concat_ws(' ', not_additive_over, title->>'en') FROM {s}.indicators";
    assert_eq!(world.text(indicator).await, "{district} New cases");
}

#[tokio::test]
async fn the_status_of_an_instance_is_one_row() {
    let mut world = World::new().await;
    let mut status = InstanceStatus {
        instance: "kampot".into(),
        state: "loading",
        progress: Some(0.25),
        cursor: Some(Instant(1_700_000_000_123)),
        ..InstanceStatus::default()
    };
    assert_eq!(world.sink.status(std::slice::from_ref(&status)).await.unwrap(), 1);
    status.state = "live";
    status.cases_known = 317;
    assert_eq!(world.sink.status(std::slice::from_ref(&status)).await.unwrap(), 1);
    let row =
        "SELECT concat_ws(' ', state, progress, cases_known, cursor AT TIME ZONE 'UTC', last_error)
               FROM {s}.sync_status";
    assert_eq!(world.text(row).await, "live 0.25 317 2023-11-14 22:13:20.123");
    let mut other = Sink::open(world.settings.clone(), &catalog()).await.unwrap();
    other.take_over(RunId(2), 77).await.unwrap();
    assert_eq!(world.sink.status(&[status]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_check_says_what_is_missing() {
    let world = World::new().await;
    let found = check(&world.settings, &catalog()).await.unwrap();
    assert!(found.schema_exists && found.tables.contains(&"cases".to_owned()), "{found:?}");
    let weak = "CREATE ROLE weak LOGIN PASSWORD 'weak'; REVOKE ALL ON DATABASE {db} FROM PUBLIC;
                GRANT CONNECT ON DATABASE {db} TO weak";
    world.db.batch_execute(&weak.replace("{db}", &world.server.name)).await.unwrap();
    let (_, place) = world.server.url.split_once('@').unwrap();
    let url = format!("postgres://weak:weak@{place}");
    let mut settings = world.settings.clone();
    settings.address = Address::parse(&url, None).unwrap();
    let error = check(&settings, &catalog()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permission, "{error}");
    settings.schema = "elsewhere".into();
    let error = check(&settings, &catalog()).await.unwrap_err();
    assert!(error.to_string().contains("GRANT CREATE ON DATABASE"), "{error}");
    settings.address = Address::parse("postgres://tonle@127.0.0.1:1/x", None).unwrap();
    let error = check(&settings, &catalog()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
}

#[tokio::test]
async fn large_epochs_take_other_ways_to_the_same_rows() {
    let mut world = World::new().await;
    let cells = |old: i64, new: i64| {
        let each = (0..9_000).map(move |i| {
            let share = (i % 2) as i64 * 4;
            let of = |n: i64| if n == 0 { (0, 0) } else { (n, share) };
            let month = Period::of(PeriodType::Month, Day(1 + 31 * (i / 6)));
            let cell = Cell::new((i % 2) as u16 * 2, month, 1, i % 6 / 2);
            change(cell, of(old), of(new))
        });
        let mut cells: Vec<_> = each.collect();
        cells.sort();
        cells
    };
    let rows = |existed| (1..5_000).map(move |key| row(key, existed, Some([1, 2]))).collect();
    let load = changes(cells(0, 1), rows(false));
    assert_eq!(world.write(1, &load).await.unwrap(), 13_999);
    assert!(world.sink.compare(&load, None, &PLAN).await.unwrap().is_equal());
    assert_eq!(world.write(2, &changes(cells(1, 2), rows(true))).await.unwrap(), 13_999);
    assert_eq!(world.write(3, &changes(cells(2, 0), vec![])).await.unwrap(), 9_000);
    assert_eq!(world.text("SELECT count(*) FROM {s}.changes").await, "27000");
    assert_eq!(world.text("SELECT count(*) FROM {s}.indicator_values").await, "0");
    let error = world.write(4, &load).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DataDiffers);
    assert_eq!(world.text("SELECT count(*) FROM {s}.indicator_values").await, "0");
}

/// A change of a figure with a median.
fn summed(cell: Cell, old: Option<(i64, i64, i64)>, new: Option<(i64, i64, i64)>) -> CellChange {
    let figure = |(numerator, denominator, doubled)| Figure {
        numerator,
        denominator,
        median_doubled: Some(doubled),
    };
    let [old, new] = [old, new].map(|f| f.map(figure).unwrap_or_default());
    CellChange { cell, old, new, reason: None }
}

/// The story of each cell: revision, old and new value of each change.
const STORY: &str = "SELECT string_agg(concat_ws(' ', revision, coalesce(old_numerator, 0),
    coalesce(new_numerator, 0), reason), ', ' ORDER BY indicator, epoch) FROM {s}.changes";

#[tokio::test]
async fn a_median_is_the_value_and_part_of_what_is_checked() {
    let mut world = World::new().await;
    let days = cell(2, 0, 0);
    let load = changes(vec![summed(days, None, Some((20, 3, 13)))], vec![]);
    assert_eq!(world.write(1, &load).await.unwrap(), 1);
    let shown =
        "SELECT string_agg(concat_ws(' ', numerator, denominator, median, value, revision), ', ')
                 FROM {s}.indicator_values";
    assert_eq!(world.text(shown).await, "20 3 6.5 6.5 1");
    assert!(world.sink.compare(&load, None, &PLAN).await.unwrap().is_equal());
    let wrong = changes(vec![summed(days, Some((20, 3, 12)), Some((20, 3, 14)))], vec![]);
    assert_eq!(world.write(2, &wrong).await.unwrap_err().kind(), Kind::DataDiffers);
    let wrong = changes(vec![summed(days, Some((20, 3, 12)), None)], vec![]);
    assert_eq!(world.write(2, &wrong).await.unwrap_err().kind(), Kind::DataDiffers);
    let right = changes(vec![summed(days, Some((20, 3, 13)), Some((20, 3, 14)))], vec![]);
    assert_eq!(world.write(2, &right).await.unwrap(), 1);
    assert_eq!(world.text(shown).await, "20 3 7 7 2");
    let story =
        "SELECT string_agg(concat_ws(' ', revision, coalesce(old_median, -1), new_median), ', '
                 ORDER BY epoch) FROM {s}.changes";
    assert_eq!(world.text(story).await, "1 -1 6.5, 2 6.5 7");
    let edit = changes(vec![summed(days, None, Some((20, 3, 15)))], vec![]);
    assert!(!world.sink.compare(&edit, None, &PLAN).await.unwrap().is_equal());
    assert_eq!(reconcile(&mut world.sink, 3, &edit, &PLAN).await, [0, 1, 0, 0, 0, 0]);
    assert_eq!(world.text(shown).await, "20 3 7.5 7.5 3");
    assert_eq!(world.text(story).await, "1 -1 6.5, 2 6.5 7, 3 7 7.5");
}

#[tokio::test]
async fn a_figure_that_left_comes_back_with_the_next_revision() {
    let mut world = World::new().await;
    let steps =
        [(1, (0, 0), (5, 0)), (2, (5, 0), (6, 0)), (3, (6, 0), (0, 0)), (4, (0, 0), (2, 0))];
    for (epoch, old, new) in steps {
        let changes = changes(vec![change(cell(0, 0, 0), old, new)], vec![]);
        world.write(epoch, &changes).await.unwrap();
    }
    let story = "1 0 5 correction, 2 5 6 correction, 3 6 0 correction, 4 0 2 correction";
    assert_eq!(world.text(STORY).await, story);
    // A reconcile tells the same story, with and without other rows in the table.
    let nothing = changes(vec![], vec![]);
    let one = changes(vec![change(cell(0, 0, 0), (0, 0), (3, 0))], vec![]);
    let other = changes(vec![change(cell(0, 9, 0), (0, 0), (1, 0))], vec![]);
    for (epoch, complete) in [(5, &nothing), (6, &one), (7, &other), (8, &one)] {
        reconcile(&mut world.sink, epoch, complete, &PLAN).await;
    }
    let revision = "SELECT string_agg(concat_ws(' ', epoch, revision), ', ' ORDER BY epoch)
                    FROM {s}.changes WHERE new_numerator = 3 OR old_numerator = 3";
    assert_eq!(world.text(revision).await, "6 6, 7 7, 8 8");
    let shown =
        "SELECT string_agg(concat_ws(' ', numerator, revision), ', ') FROM {s}.indicator_values";
    assert_eq!(world.text(shown).await, "3 8");
    assert_eq!(world.text("SELECT string_agg(revision::text, ' ') FROM {s}.tonle_left").await, "2");
}

#[tokio::test]
async fn copied_figures_come_back_with_the_next_revision_too() {
    let mut world = World::new().await;
    let cells = |old: i64, new: i64| {
        let each = (0..4_500).map(|i| {
            let month = Period::of(PeriodType::Month, Day(1 + 31 * (i / 3)));
            change(Cell::new(0, month, 1, i % 3), (old, 0), (new, 0))
        });
        let mut cells: Vec<_> = each.collect();
        cells.sort();
        changes(cells, vec![])
    };
    for (epoch, old, new) in [(1, 0, 1), (2, 1, 0), (3, 0, 2)] {
        assert_eq!(world.write(epoch, &cells(old, new)).await.unwrap(), 4_500);
    }
    for (table, epoch) in [("indicator_values", 3), ("changes", 3)] {
        let revisions = format!(
            "SELECT string_agg(DISTINCT revision::text, ' ') FROM {{s}}.{table} WHERE epoch = {epoch}"
        );
        assert_eq!(world.text(&revisions).await, "3", "{table}");
    }
    assert_eq!(world.text("SELECT count(*) FROM {s}.tonle_left").await, "0");

    // One leaves while others are copied: the change by which it leaves has the number after its last one, and the
    // change by which it comes back the number after that.
    let (gone, mut most) = (cells(2, 0).cells[0], cells(2, 0).cells);
    most.iter_mut().skip(1).for_each(|one| {
        let period = one.cell.period();
        one.cell = Cell::new(1, period, 1, one.cell.dimensions());
        (one.old, one.new) = (Figure::default(), figure(3, 0));
    });
    assert_eq!(world.write(4, &changes(most, vec![])).await.unwrap(), 4_500);
    let back = changes(vec![change(gone.cell, (0, 0), (5, 0))], vec![]);
    assert_eq!(world.write(5, &back).await.unwrap(), 1);
    let told = "SELECT string_agg(revision::text, ' ' ORDER BY epoch) FROM {s}.changes
                 WHERE cell = (SELECT cell FROM {s}.changes WHERE epoch = 5)";
    assert_eq!(world.text(told).await, "1 2 3 4 5");
}

#[tokio::test]
async fn each_change_says_why_and_the_epoch_for_the_rest() {
    let mut world = World::new().await;
    let because = |change: CellChange, reason| CellChange { reason: Some(reason), ..change };
    let first = changes(
        vec![
            change(cell(0, 0, 0), (0, 0), (5, 0)),
            because(change(cell(0, 0, 1), (0, 0), (3, 0)), Reason::MappingChange),
            change(cell(0, 0, 2), (0, 0), (1, 0)),
        ],
        vec![],
    );
    assert_eq!(world.write(1, &first).await.unwrap(), 3);
    let second = changes(
        vec![
            because(change(cell(0, 0, 0), (5, 0), (0, 0)), Reason::LocationChange),
            because(change(cell(0, 0, 1), (3, 0), (4, 0)), Reason::PackChange),
        ],
        vec![],
    );
    assert_eq!(world.write(2, &second).await.unwrap(), 2);
    let complete = changes(
        vec![
            because(change(cell(0, 0, 0), (0, 0), (7, 0)), Reason::PackChange),
            because(change(cell(0, 0, 1), (0, 0), (9, 0)), Reason::MappingChange),
        ],
        vec![],
    );
    reconcile(&mut world.sink, 3, &complete, &PLAN).await;
    let reasons =
        "SELECT string_agg(concat_ws(' ', epoch, coalesce(new_numerator, 0), reason), ', '
                   ORDER BY epoch, new_numerator) FROM {s}.changes";
    assert_eq!(
        world.text(reasons).await,
        "1 1 correction, 1 3 mapping change, 1 5 correction, 2 4 pack change, 2 0 location change, \
         3 7 pack change, 3 9 mapping change, 3 0 reconcile"
    );
}

/// Which figures are provisional, with the epoch that wrote them last.
const PROVISIONAL: &str =
    "SELECT string_agg(concat_ws(' ', period_type, period_start, provisional, epoch,
    revision), ', ' ORDER BY period_type, period_start) FROM {s}.indicator_values";

#[tokio::test]
async fn a_figure_is_provisional_until_its_period_ended() {
    let mut world = World::new().await;
    let day = |year, month, day| Day::of(jiff::civil::date(year, month, day)).unwrap();
    let types = [PeriodType::Week, PeriodType::Month, PeriodType::FiscalYear, PeriodType::Now];
    let periods = types.map(|t| Period::in_calendar(t, day(2026, 7, 30), 8));
    let cells = periods.map(|period| change(Cell::new(0, period, 1, 0), (0, 0), (1, 0)));
    let mut load = changes(cells.to_vec(), vec![]);
    load.cells.sort();
    let write = async |world: &mut World, epoch, changes: &Changes, today, has_tick| {
        let meta = EpochMeta { today: Some(today), has_tick, ..META };
        let logged = Logged::after_fsync(Epoch(epoch));
        world.sink.write(&logged, meta, changes, &PLAN).await.unwrap().1.total()
    };
    let nothing = changes(vec![], vec![]);
    assert_eq!(write(&mut world, 1, &load, day(2026, 7, 30), true).await, 4);
    let all =
        "fiscal_year 2025-08-01 t 1 1, month 2026-07-01 t 1 1, now t 1 1, week 2026-07-26 t 1 1";
    assert_eq!(world.text(PROVISIONAL).await, all);
    // The last day of a month is still part of it.
    write(&mut world, 2, &nothing, day(2026, 7, 31), true).await;
    assert_eq!(world.text(PROVISIONAL).await, all);
    assert_eq!(write(&mut world, 3, &nothing, day(2026, 8, 1), true).await, 0);
    let ended =
        "fiscal_year 2025-08-01 f 3 1, month 2026-07-01 f 3 1, now t 1 1, week 2026-07-26 t 1 1";
    assert_eq!(world.text(PROVISIONAL).await, ended);
    assert!(world.sink.compare(&load, Some(day(2026, 8, 1)), &PLAN).await.unwrap().is_equal());
    assert_eq!(world.sink.compare(&load, None, &PLAN).await.unwrap().different, 2);
    // Without a tick nothing is searched; a reconcile looks itself.
    write(&mut world, 4, &nothing, day(2026, 8, 2), false).await;
    assert_eq!(world.text(PROVISIONAL).await, ended);
    let meta = EpochMeta { today: Some(day(2026, 8, 2)), ..META };
    let logged = Logged::after_fsync(Epoch(5));
    let (_, counts) = world.sink.reconcile(&logged, meta, &load, &PLAN).await.unwrap();
    assert!(counts.is_clean() && counts.settled == 1, "{counts:?}");
    let all_but_now =
        "fiscal_year 2025-08-01 f 3 1, month 2026-07-01 f 3 1, now t 1 1, week 2026-07-26 f 5 1";
    assert_eq!(world.text(PROVISIONAL).await, all_but_now);
    assert_eq!(world.text("SELECT count(*) FROM {s}.changes").await, "4");
    let settled = "SELECT string_agg(concat_ws(' ', epoch, rows_updated, rows_settled), ', '
                   ORDER BY epoch) FROM {s}.epochs WHERE rows_settled > 0";
    assert_eq!(world.text(settled).await, "3 0 2, 5 0 1");
    // A late entry into a period that ended is never provisional.
    let late = changes(vec![change(cell(0, 0, 0), (0, 0), (1, 0))], vec![]);
    write(&mut world, 6, &late, day(2026, 8, 2), false).await;
    let late =
        "SELECT string_agg(provisional::text, ' ') FROM {s}.indicator_values WHERE epoch = 6";
    assert_eq!(world.text(late).await, "false");
}

/// What the steps after the first made, taken away again; the data dictionary is made anew by step 3.
const BACK_TO_ONE: &str = "
    DROP TABLE {s}.dimensions, {s}.tonle_made, {s}.tonle_erased CASCADE;
    ALTER TABLE {s}.indicators DROP COLUMN periods, DROP COLUMN breakdowns, DROP COLUMN view_column,
        DROP COLUMN framework, DROP COLUMN direction;
    ALTER TABLE {s}.tonle_pipeline DROP COLUMN instances_fingerprint, DROP COLUMN places_fingerprint,
        DROP COLUMN agencies_fingerprint;
    ALTER TABLE {s}.sync_status DROP COLUMN backfill;
    DROP VIEW {s}.frozen_differences; DROP TABLE {s}.frozen_values, {s}.tonle_left;
    ALTER TABLE {s}.indicator_values DROP COLUMN value CASCADE;
    ALTER TABLE {s}.indicator_values DROP COLUMN median, DROP COLUMN revision, DROP COLUMN provisional,
        ADD COLUMN value double precision GENERATED ALWAYS AS (CASE WHEN denominator IS NULL THEN
            numerator::double precision WHEN denominator = 0 THEN NULL
            ELSE numerator::double precision / denominator END) STORED;
    ALTER TABLE {s}.changes DROP COLUMN old_median, DROP COLUMN new_median, DROP COLUMN revision;
    ALTER TABLE {s}.epochs DROP COLUMN rows_settled;
    DELETE FROM {s}.tonle_migrations WHERE version > 1";

#[tokio::test]
async fn tables_of_the_first_version_are_brought_along() {
    let mut world = World::new().await;
    world.write(1, &first()).await.unwrap();
    let schema = format!("\"{}\"", world.settings.schema.replace('"', "\"\""));
    world.db.batch_execute(&BACK_TO_ONE.replace("{s}", &schema)).await.unwrap();
    let error = tonle::sink::frozen(&world.settings).await.unwrap_err();
    assert!(error.to_string().contains("older version"), "{error}");
    world.sink = Sink::open(world.settings.clone(), &catalog()).await.unwrap();
    // What the tables follow besides the packs was not written down then: a start would reconcile.
    let Fingerprint { instances, places, agencies, .. } = catalog().fingerprint;
    let [instances, places, agencies] = [instances, places, agencies].map(u64::cast_signed);
    let follows = format!(
        "UPDATE {schema}.tonle_pipeline SET instances_fingerprint = {instances},
             places_fingerprint = {places}, agencies_fingerprint = {agencies}"
    );
    world.db.batch_execute(&follows).await.unwrap();
    world.sink.take_over(RunId(2), 77).await.unwrap();
    let shown = "SELECT string_agg(concat_ws(' ', numerator, value, revision, provisional), ', '
                 ORDER BY numerator) FROM {s}.indicator_values";
    assert_eq!(world.text(shown).await, "1 0.25 1 f, 3 3 1 f, 5 5 1 f");
    let next = changes(vec![change(cell(0, 0, 0), (5, 0), (6, 0))], vec![]);
    assert_eq!(world.write(2, &next).await.unwrap(), 1);
    assert_eq!(world.text(shown).await, "1 0.25 1 f, 3 3 1 f, 6 6 2 f");
    let silent = "SELECT string_agg(table_name || '.' || coalesce(name, ''), ', ')
                  FROM {s}.data_dictionary WHERE coalesce(meaning, '') = ''";
    assert_eq!(world.text(silent).await, "");
    assert!(tonle::sink::frozen(&world.settings).await.unwrap().is_empty());
}
