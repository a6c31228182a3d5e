//! End to end: simulated servers over HTTP, the real program, a real Postgres.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tonle::sim::{EditKind, Settings, Sim, generator};

use crate::support::program::{Program, assert_same_tables, cases_of_today, primero};

/// Rows inserted, updated and deleted, by table.
type Written = BTreeMap<String, [i64; 3]>;

#[test]
fn a_status_without_a_date_counts_when_it_was_first_seen() {
    const MONTH: Duration = Duration::from_secs(31 * 24 * 60 * 60);
    let day = jiff::civil::date(2024, 3, 10);
    let takeo = primero(Settings { case_count: 0, today: day, ..Settings::default() });
    let child = id_of(1);
    let case = json!({ "module_id": "primeromodule-cp", "sex": "female", "status": "open",
                       "registration_date": "2024-01-10", "tracing_status": "reunified" });
    takeo.patch(&child, case).unwrap();
    let program = Program::new().server("takeo", &takeo);
    program.once(0);
    let reunified = || {
        program.query(
            "SELECT period_start, numerator FROM tonle.indicator_values
              WHERE indicator = 'CA-01' AND instance = 'takeo' AND period_type = 'month'
                AND placement_kind = 'family_return' AND sex = 'all' AND province = 'all' AND age_group = 'all'",
        )
    };
    assert_eq!(reunified(), "2024-03-01|1");
    // The stamp moves, the status stays, and the program begins anew each time.
    for risk in ["low", "high"] {
        takeo.advance(MONTH);
        takeo.patch(&child, json!({ "risk_level": risk })).unwrap();
        program.once(0);
        assert_eq!(reunified(), "2024-03-01|1");
    }
    takeo.patch(&child, json!({ "tracing_status": "open" })).unwrap();
    program.once(0);
    assert_eq!(reunified(), "");
    takeo.advance(MONTH);
    takeo.patch(&child, json!({ "tracing_status": "reunified" })).unwrap();
    program.once(0);
    assert_eq!(reunified(), "2024-06-01|1");
    program.assert_true_to_state();
}

#[test]
fn a_few_cases_are_counted_as_by_hand() {
    let takeo = primero(cases_of_today(1, 0));
    let (girl, boy, double) = (id_of(1), id_of(2), id_of(3));
    let case = |sex: &str, age: u8, registered: &str, status: &str| {
        json!({ "module_id": "primeromodule-cp", "sex": sex, "age": age, "status": status,
                "date_of_birth": null,
                "registration_date": registered })
    };
    takeo.patch(&girl, case("female", 9, "2016-02-10", "open")).unwrap();
    takeo.patch(&boy, case("male", 15, "2016-02-29", "open")).unwrap();
    takeo.patch(&double, case("male", 15, "2016-03-01", "duplicate")).unwrap();
    let mut program = Program::new().server("takeo", &takeo);
    program.start();
    program.wait_until_live("takeo");
    let registered = |program: &Program| {
        program.query(
            "SELECT instance, period_type, period_start, sex, age_group, numerator
               FROM tonle.indicator_values WHERE indicator = 'CM-01' AND province = 'all'
                AND district = 'all' AND agency = 'all' AND instance = 'takeo'
                AND period_type <> 'quarter'
              ORDER BY period_type, period_start, sex, age_group",
        )
    };
    let both = "takeo|month|2016-02-01|all|all|2\n\
                takeo|month|2016-02-01|female|6-11|1\n\
                takeo|month|2016-02-01|male|12-17|1\n\
                takeo|year|2016-01-01|all|all|2\n\
                takeo|year|2016-01-01|female|6-11|1\n\
                takeo|year|2016-01-01|male|12-17|1";
    assert_eq!(registered(&program), both);
    let rows = "SELECT sex, age_now, registered_month FROM tonle.cases ORDER BY 1";
    assert_eq!(program.query(rows), "female|6-11|2016-02-01\nmale|12-17|2016-02-01");

    takeo.patch(&girl, json!({"record_state": false})).unwrap();
    program.wait_for("takeo", &takeo);
    let one = "takeo|month|2016-02-01|all|all|1\n\
               takeo|month|2016-02-01|male|12-17|1\n\
               takeo|year|2016-01-01|all|all|1\n\
               takeo|year|2016-01-01|male|12-17|1";
    assert_eq!(registered(&program), one);
    assert_eq!(program.query(rows), "male|12-17|2016-02-01");

    takeo.patch(&girl, json!({"record_state": true})).unwrap();
    program.wait_for("takeo", &takeo);
    assert_eq!(registered(&program), both);
    let story = "SELECT old_numerator, new_numerator FROM tonle.changes JOIN tonle.indicator_values
        USING (cell) WHERE changes.indicator = 'CM-01' AND period_type = 'month' AND sex = 'all'
        AND age_group = 'all' AND district = 'all' AND province = 'all' AND agency = 'all'
        AND instance = 'all'
        ORDER BY changes.epoch";
    assert_eq!(program.query(story), "|2\n2|1\n1|2");
    assert_eq!(program.stop(), 0, "{}", program.log());
    program.assert_true_to_state();
}

#[test]
fn live_edits_of_several_servers_arrive_and_every_change_is_told() {
    let sims = [primero(cases_of_today(2, 60)), primero(cases_of_today(3, 40))];
    let mut program = Program::reproducible().server("kampot", &sims[0]).server("takeo", &sims[1]);
    program.start();
    for name in ["kampot", "takeo"] {
        program.wait_until_live(name);
    }
    for _ in 0..2 {
        sims[0].edit(30).unwrap();
        sims[1].edit(15).unwrap();
        program.wait_for("kampot", &sims[0]);
        program.wait_for("takeo", &sims[1]);
        program.assert_true_to_state();
    }
    assert_eq!(program.stop(), 0, "{}", program.log());
    program.assert_true_to_state();
    assert_changes_are_a_chain(&program);
    assert_as_undisturbed(&program, &[("kampot", &sims[0]), ("takeo", &sims[1])]);
    // The servers say what their options are called.
    let label = "SELECT label->>'en' FROM tonle.options WHERE value = 'food_service'";
    assert_eq!(program.query(label), "Food service");
    assert_wide_as_long(&program);
}

/// The wide views of the shipped packs hold the figures of the long table, with labels.
fn assert_wide_as_long(program: &Program) {
    let differing = "SELECT count(*) FROM (
        SELECT instance, period_type, period_start, province, sex, value FROM tonle.indicator_values
         WHERE indicator = 'CM-01' AND province <> 'all' AND sex <> 'all') l
        FULL JOIN (SELECT * FROM tonle.v_province_sex WHERE cm_01 IS NOT NULL) w
          ON (l.instance, l.period_type, l.period_start, l.province, l.sex)
           = (w.instance, w.period_type, w.period_start, w.province, w.sex)
        WHERE l.value IS DISTINCT FROM w.cm_01";
    assert_eq!(program.query(differing), "0");
    let figures =
        "SELECT count(cm_01) > 50, bool_and(sex_label IN ('Female', 'Male', 'Not recorded',
        'Other value')), count(DISTINCT province_kind) FROM tonle.v_province_sex";
    assert_eq!(program.query(figures), "t|t|2", "provinces and the country");
    assert_eq!(
        program.query(
            "SELECT label->>'km' FROM tonle.options WHERE dimension = 'sex' AND value = 'female'"
        ),
        "ស្រី"
    );
    let silent = "SELECT count(*) FROM tonle.data_dictionary WHERE coalesce(meaning, '') = ''";
    assert_eq!(program.query(silent), "0");
}

#[test]
fn as_many_rows_are_written_as_changed() {
    let kampot = primero(cases_of_today(4, 100));
    let mut program = Program::reproducible().server("kampot", &kampot);
    program.once(0);
    let (loaded, before) = (written(&mut program), rows_by_key(&program));
    for (table, rows) in &before {
        assert_eq!(loaded[table], [rows.len() as i64, 0, 0], "{table} at the first load");
    }
    assert!(loaded["indicator_values"][0] > 1_000, "{loaded:?}");

    // Everything that is saved while the program is down arrives as one epoch.
    kampot.edit(60).unwrap();
    program.once(0);
    let (edited, after) = (written(&mut program), rows_by_key(&program));
    for (table, rows) in &after {
        let differences = differences(&before[table], rows);
        assert_eq!(since(&loaded, &edited, table), differences, "{table}");
    }
    let cells = since(&loaded, &edited, "indicator_values");
    assert!(cells.iter().all(|count| *count > 0), "{cells:?}");
    assert_eq!(since(&loaded, &edited, "changes"), [cells.iter().sum(), 0, 0]);
    for table in ["indicators", "options", "locations"] {
        assert_eq!(since(&loaded, &edited, table), [0; 3], "{table}");
    }

    // A running program: as many as its epochs say.
    let of_epochs = "SELECT sum(rows_inserted), sum(rows_updated), sum(rows_deleted)
                       FROM tonle.epochs WHERE epoch > ";
    let first = program.query("SELECT max(epoch) FROM tonle.epochs");
    program.start();
    for _ in 0..3 {
        kampot.edit(20).unwrap();
        program.wait_for("kampot", &kampot);
    }
    assert_eq!(program.stop(), 0, "{}", program.log());
    let live = written(&mut program);
    let mut sum = [0; 3];
    for table in after.keys() {
        let more = since(&edited, &live, table);
        sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    let told = program.query(&format!("{of_epochs}{first}"));
    assert_eq!(sum.map(|count| count.to_string()).join("|"), told);

    // Without its state the program reads everything again, and finds nothing to write.
    fs::remove_dir_all(program.state()).unwrap();
    program.once(0);
    let again = written(&mut program);
    for table in after.keys() {
        assert_eq!(since(&live, &again, table), [0; 3], "{table} after the state was lost");
    }
    program.assert_true_to_state();
}

#[test]
fn a_save_that_changes_no_figure_writes_nothing() {
    let kampot = primero(cases_of_today(5, 80));
    let mut program = Program::new().server("kampot", &kampot);
    program.once(0);
    let everything = |program: &Program| {
        let tables = ["indicator_values", "cases", "services", "changes", "epochs"];
        tables.map(|table| program.query(&format!("SELECT * FROM tonle.{table} ORDER BY 1, 2")))
    };
    let (counted, before) = (written(&mut program), everything(&program));
    program.start();
    for case in kampot.cases().iter().take(30) {
        kampot.patch(case["id"].as_str().unwrap(), json!({})).unwrap();
        kampot.patch(case["id"].as_str().unwrap(), json!({"name_nickname": "heron"})).unwrap();
    }
    program.wait_for("kampot", &kampot);
    assert_eq!(program.stop(), 0, "{}", program.log());
    assert_eq!(everything(&program), before);
    let recounted = written(&mut program);
    for table in ["indicator_values", "cases", "services", "changes", "epochs"] {
        assert_eq!(recounted[table], counted[table], "{table}");
    }
}

#[test]
fn two_workers_write_what_one_writes() {
    let kampot = primero(cases_of_today(6, 80));
    let [one, two] = [(); 2].map(|()| Program::reproducible().server("kampot", &kampot));
    for _ in 0..2 {
        one.once_with(&["--workers", "1"], 0);
        two.once_with(&["--workers", "2"], 0);
        assert_same_tables(&one.tables(), &two.tables());
        assert_eq!(one.rows("changes").len(), two.rows("changes").len());
        kampot.edit(50).unwrap();
    }
}

#[test]
fn a_server_that_is_down_delays_no_other() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let takeo = primero(Settings { listen: address, ..cases_of_today(7, 40) });
    let kampot = primero(cases_of_today(8, 60));
    takeo.stop();
    let mut program = Program::reproducible().server("takeo", &takeo).server("kampot", &kampot);
    drop(takeo);
    program.start();
    program.wait_until_live("kampot");
    kampot.edit(10).unwrap();
    program.wait_for("kampot", &kampot);
    let takeo_values = "SELECT count(*) FROM tonle.indicator_values WHERE instance = 'takeo'";
    assert_eq!(program.query(takeo_values), "0");
    let told = "SELECT last_error LIKE '%no connection%' FROM tonle.sync_status
                 WHERE instance = 'takeo'";
    program.wait_until("the trouble is told", |program| {
        program.try_query(told).as_deref() == Some("t")
    });
    let takeo = primero(Settings { listen: address, ..cases_of_today(7, 40) });
    program.wait_until_live("takeo");
    assert_eq!(program.stop(), 0, "{}", program.log());
    program.assert_true_to_state();
    assert_as_undisturbed(&program, &[("takeo", &takeo), ("kampot", &kampot)]);
}

#[test]
fn an_instance_that_comes_later_disturbs_no_other() {
    let (kampot, takeo) = (primero(cases_of_today(9, 50)), primero(cases_of_today(10, 30)));
    let mut program = Program::reproducible().server("kampot", &kampot);
    program.once(0);
    let own = "SELECT * FROM tonle.indicator_values WHERE instance = 'kampot' ORDER BY cell";
    let before = program.query(own);
    let from_the_start = |sim: &Sim| {
        let lines = sim.request_lines();
        lines.iter().filter(|line| line.contains("last_updated_at=1970")).count()
    };
    assert_eq!(from_the_start(&kampot), 1);

    program = program.server("takeo", &takeo);
    program.once(0);
    assert_eq!(program.query(own), before, "not even the epoch of a row differs");
    assert_eq!(from_the_start(&kampot), 1, "nothing is read twice");
    program.assert_true_to_state();
    assert_changes_are_a_chain(&program);
    assert_as_undisturbed(&program, &[("kampot", &kampot), ("takeo", &takeo)]);

    program.remove_instance("takeo");
    program.once(0);
    assert_eq!(program.query(own), before);
    assert_eq!(
        program.query("SELECT DISTINCT instance FROM tonle.indicator_values"),
        "all\nkampot"
    );
    program.assert_true_to_state();
}

#[test]
fn files_are_replayed_in_their_order() {
    let kampot = primero(cases_of_today(11, 80));
    let mut program = Program::reproducible();
    let path = |name: &str| program.path(name);
    let [first, second, last] = ["first.ndjson", "second.ndjson", "last.ndjson"].map(path);
    let places = path("places.json");
    generator::write_locations(fs::File::create(&places).unwrap()).unwrap();
    write_cases(&first, &kampot.cases());
    let edits = kampot.edit(40).unwrap();
    assert!(edits.iter().any(|edit| edit.kind == EditKind::Disabled), "seed without a disable");
    let changed = kampot.cases().into_iter();
    let changed: Vec<_> =
        changed.filter(|case| edits.iter().any(|edit| case["id"] == edit.case)).collect();
    write_cases(&second, &changed);
    write_cases(&last, &kampot.cases());

    program.set_files("kampot", &[&first], Some(&places));
    program.once(0);
    let loaded = program.tables();
    program.set_files("kampot", &[&first, &second], Some(&places));
    program.once(0);
    assert_ne!(program.tables(), loaded);
    program.assert_true_to_state();
    for paths in [&[&*first, &*second][..], &[&*last]] {
        let mut other = Program::reproducible();
        other.set_files("kampot", paths, Some(&places));
        other.once(0);
        assert_same_tables(&program.tables(), &other.tables());
    }
    assert_as_undisturbed(&program, &[("kampot", &kampot)]);

    // A line that comes later, in two pieces.
    program.start();
    kampot.patch(changed[0]["id"].as_str().unwrap(), json!({"record_state": false})).unwrap();
    let find = |case: &Value| case["id"] == changed[0]["id"];
    let line = kampot.cases().into_iter().find(find).unwrap().to_string();
    let (begun, rest) = line.split_at(line.floor_char_boundary(line.len() / 2));
    append(&second, begun);
    append(&second, &format!("{rest}\n"));
    let cases = "SELECT count(*) FROM tonle.cases";
    let fewer = program.query(cases).parse::<u64>().unwrap() - 1;
    let fewer = fewer.to_string();
    program.wait_until("the appended line arrived", |program| program.query(cases) == fewer);
    assert_eq!(program.stop(), 0, "{}", program.log());
    program.assert_true_to_state();
}

#[test]
fn the_judges_of_these_tests_see_what_is_wrong() {
    let kampot = primero(cases_of_today(12, 30));
    let program = Program::reproducible().server("kampot", &kampot);
    program.once(0);
    let objects = |judge: fn(&Program)| catch_unwind(AssertUnwindSafe(|| judge(&program))).is_err();
    assert!(!objects(assert_changes_are_a_chain) && !objects(Program::assert_true_to_state));
    let (tables, some) = (program.tables(), "(SELECT min(cell::text)::uuid FROM tonle.changes)");
    program.query(&format!("DELETE FROM tonle.changes WHERE cell = {some}"));
    assert!(objects(assert_changes_are_a_chain));
    assert!(!objects(Program::assert_true_to_state));
    program.query("UPDATE tonle.cases SET sex = 'heron' WHERE sex = 'female'");
    assert!(objects(Program::assert_true_to_state));
    let same = || assert_same_tables(&program.tables(), &tables);
    assert!(catch_unwind(AssertUnwindSafe(same)).is_err());
    assert_eq!(program.verify().code, 65);
}

/// Expects the tables that a new program makes of the servers as they are now.
#[track_caller]
pub(crate) fn assert_as_undisturbed(program: &Program, sims: &[(&str, &Sim)]) {
    let folder = tempfile::tempdir().unwrap();
    let mut other = Program::reproducible();
    let copies: Vec<_> = sims.iter().map(|(name, sim)| copy(folder.path(), name, sim)).collect();
    for ((name, _), copy) in sims.iter().zip(&copies) {
        other = other.server(name, copy);
    }
    other.once(0);
    assert_same_tables(&program.tables(), &other.tables());
    assert_same_tables(&program.descriptions(), &other.descriptions());
}

/// Another server with the same cases.
fn copy(folder: &Path, name: &str, sim: &Sim) -> Sim {
    let path = folder.join(format!("{name}.ndjson"));
    write_cases(&path, &sim.cases());
    primero(Settings { from: Some(path), ..cases_of_today(1, 0) })
}

fn write_cases(path: &Path, cases: &[Value]) {
    let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
    fs::write(path, lines).unwrap();
}

fn append(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn id_of(number: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{number:02}")
}

/// Expects that each change begins where the one before it of the same cell ended, that none changes nothing,
/// and that the last ones are the table.
#[track_caller]
pub(crate) fn assert_changes_are_a_chain(program: &Program) {
    let broken = "SELECT count(*) FROM (
        SELECT old_numerator, old_denominator, new_numerator, new_denominator,
               lag(new_numerator) OVER story AS numerator, lag(new_denominator) OVER story AS denominator
          FROM tonle.changes WINDOW story AS (PARTITION BY cell ORDER BY epoch)) AS change
        WHERE (old_numerator, old_denominator) IS DISTINCT FROM (numerator, denominator)
           OR (old_numerator, old_denominator) IS NOT DISTINCT FROM (new_numerator, new_denominator)";
    assert_eq!(program.query(broken), "0");
    let unlike = "SELECT count(*) FROM (
        SELECT DISTINCT ON (cell) cell, epoch, new_numerator, new_denominator FROM tonle.changes
         ORDER BY cell, epoch DESC) AS change
        FULL JOIN tonle.indicator_values AS present USING (cell)
        WHERE (new_numerator, new_denominator) IS DISTINCT FROM (numerator, denominator)
           OR present.epoch <> change.epoch";
    assert_eq!(program.query(unlike), "0");
    assert_ne!(program.query("SELECT count(*) FROM tonle.changes"), "0");
}

/// What Postgres has counted since the tables were made. Sessions hand their counts over when they end, at the
/// latest, so the program must not run.
fn written(program: &mut Program) -> Written {
    let sessions = "SELECT count(*) FROM pg_stat_activity
                     WHERE application_name = 'tonle' AND datname = current_database()";
    program.wait_until("no session is left", |program| program.query(sessions) == "0");
    let counts = program.query(
        "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables
          WHERE schemaname = 'tonle'",
    );
    let read = |line: &str| {
        let mut words = line.split('|');
        let table = words.next().unwrap().to_owned();
        (table, [(); 3].map(|()| words.next().unwrap().parse().unwrap()))
    };
    counts.lines().map(read).collect()
}

fn since(before: &Written, after: &Written, table: &str) -> [i64; 3] {
    let none = [0; 3];
    let (before, after) = (before.get(table).unwrap_or(&none), &after[table]);
    [0, 1, 2].map(|index| after[index] - before[index])
}

/// The published rows by their key, without the columns that say when a row was written.
fn rows_by_key(program: &Program) -> BTreeMap<String, BTreeMap<String, String>> {
    let keys = [("indicator_values", "cell"), ("cases", "case_key"), ("services", "service_key")];
    let rows = |(table, key): (&str, &str)| {
        let text = program.query(&format!(
            "SELECT {key}, md5((to_jsonb(t) - 'epoch' - 'updated_at')::text) FROM tonle.{table} t"
        ));
        let pair = |line: &str| line.split_once('|').map(|(key, row)| (key.into(), row.into()));
        (table.to_owned(), text.lines().filter_map(pair).collect())
    };
    keys.into_iter().map(rows).collect()
}

/// How many rows came, changed and left.
fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> [i64; 3] {
    let came = after.keys().filter(|key| !before.contains_key(*key)).count();
    let left = before.keys().filter(|key| !after.contains_key(*key)).count();
    let changed =
        after.iter().filter(|(key, row)| before.get(*key).is_some_and(|old| old != *row)).count();
    [came, changed, left].map(|count| count as i64)
}
