//! Something else is to be counted while the cases go on changing: the tables follow, `changes` says why, and nobody
//! waits for what has to be read again.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tonle::sim::{Fault, Sim, generator};

use super::packs::{FIELD, INDICATOR, OF_NATIONALITIES};
use super::restart::loaded;
use super::{Editor, assert_changes_are_a_chain, recent, undisturbed};
use crate::support::program::{Program, assert_same_tables};

const EPOCH: &str = "SELECT max(epoch) FROM tonle.epochs";
const BACKFILL: &str = "SELECT backfill FROM tonle.sync_status WHERE instance = 'kampot'";

/// Pause before each piece of an answer of a server that is read again.
const SLOW: Duration = Duration::from_millis(100);

#[test]
fn a_pack_changes_under_live_edits() {
    let (program, sims) = loaded();
    let program = change(program, &sims, "pack change", |p| recent(p, Some(INDICATOR)));
    let touched = "SELECT DISTINCT indicator FROM tonle.changes WHERE reason = 'pack change'";
    assert_eq!(program.query(touched), "X-01");
    assert_no_row_of_a_case(&program, "pack change");
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
}

#[test]
fn a_mapping_changes_under_live_edits() {
    let (program, sims) = loaded();
    let swap = "mappings.sex = { male = \"female\", female = \"male\" }";
    let program =
        change(program, &sims, "mapping change", |p| p.server_with("kampot", &sims[0], swap));
    let touched = "SELECT count(*) > 0 FROM tonle.changes WHERE reason = 'mapping change'";
    assert_eq!(program.query(touched), "t");
}

#[test]
fn the_places_change_under_live_edits() {
    let (mut program, sims) = loaded();
    let [cases, places] = ["cases.ndjson", "places.json"].map(|name| program.path(name));
    fs::write(&cases, format!("{}\n", sims[0].cases()[0])).unwrap();
    generator::write_locations(fs::File::create(&places).unwrap()).unwrap();
    // Its places hold, for it is the last one that is named.
    program.set_files("register", &[&cases], Some(&places));
    program.once(0);
    let program = change(program, &sims, "location change", |program| {
        let text = fs::read_to_string(&places).unwrap();
        fs::write(&places, moved(&text)).unwrap();
        program
    });
    let unmoved = "SELECT count(*) FROM tonle.changes JOIN tonle.indicator_values USING (cell)
        WHERE reason = 'location change' AND district = 'all' AND province = 'all'
          AND worker_province = 'all' AND incident_province = 'all' AND caregiver_province = 'all'";
    assert_eq!(program.query(unmoved), "0");
    let moved = "SELECT count(*) > 0 FROM tonle.changes WHERE reason = 'location change'";
    assert_eq!(program.query(moved), "t");
}

/// All districts become parts of the first province.
fn moved(places: &str) -> String {
    let mut reply: Value = serde_json::from_str(places).unwrap();
    let mut first = None;
    for place in reply["data"].as_array_mut().unwrap() {
        let codes = place["hierarchy"].as_array_mut().unwrap();
        let Some(province) = codes.get(1) else { continue };
        let first = first.get_or_insert_with(|| province.clone());
        if codes.len() > 2 {
            codes[1] = first.clone();
        }
    }
    reply.to_string()
}

/// Stops the program under live edits, changes something, and starts it again while they go on.
fn change(
    mut program: Program,
    sims: &[Sim],
    reason: &str,
    change: impl FnOnce(Program) -> Program,
) -> Program {
    let grown = |epoch: &str| format!("SELECT max(epoch) > {epoch} + 3 FROM tonle.epochs");
    let (editor, begun) = (Editor::start(sims), grown(&program.query(EPOCH)));
    program.start();
    program.wait_until("edits are in the tables", |program| program.query(&begun) == "t");
    assert_eq!(program.stop(), 0);
    let before = program.query(EPOCH);
    let mut program = change(program);
    program.start();
    let found =
        format!("SELECT epoch FROM tonle.epochs WHERE reason = '{reason}' AND epoch > {before}");
    program.wait_until("the change is in the tables", |p| !p.query(&found).is_empty());
    let at = program.query(&found);
    let on = grown(&at);
    program.wait_until("edits are in the tables again", |program| program.query(&on) == "t");
    editor.stop();
    assert_eq!(program.stop(), 0);
    sims.iter().for_each(|sim| sim.advance(Duration::from_secs(1)));
    program.once(0);
    program.assert_true_to_state();
    assert_changes_are_a_chain(&program);
    assert_eq!(program.query(&found), at, "one epoch is enough");
    let others = format!(
        "SELECT count(*) FROM tonle.changes WHERE (epoch = {at}) <> (reason = '{reason}')
            AND epoch > {before}"
    );
    assert_eq!(program.query(&others), "0", "no other change has the reason {reason}");
    program
}

#[track_caller]
fn assert_no_row_of_a_case(program: &Program, reason: &str) {
    for table in ["cases", "services"] {
        let touched = format!(
            "SELECT count(*) FROM tonle.{table} JOIN tonle.epochs USING (epoch) WHERE reason = '{reason}'"
        );
        assert_eq!(program.query(&touched), "0", "{table}");
    }
}

#[test]
fn a_new_field_is_read_beside_the_service() {
    let (program, sims) = loaded();
    let before = program.query(EPOCH);
    let mut program =
        recent(program, Some(FIELD)).server_with("kampot", &sims[0], "page_size = 10");
    sims[0].faults().at_rate("/api/v2/cases", 1_000, Fault::SlowBody(SLOW), 7);
    for _ in 0..2 {
        program.start();
        program
            .wait_until("kampot is read again", |program| program.query(BACKFILL) == "nationality");
        sims[0].edit(3).unwrap();
        program.wait_for("kampot", &sims[0]); // which needs only what changed
        assert_eq!(program.query(BACKFILL), "nationality");
        program.kill();
    }
    sims[0].faults().clear();
    program.start();
    program.wait_until("everything is read again", |program| {
        program.query("SELECT count(backfill) FROM tonle.sync_status") == "0"
    });
    assert_eq!(program.stop(), 0);
    program.assert_true_to_state();
    assert_ne!(program.query(OF_NATIONALITIES), "0");
    assert_same_tables(&program.tables(), &undisturbed(&program, &sims).tables());
    assert_changes_are_a_chain(&program);
    let read_again = format!(
        "SELECT DISTINCT indicator FROM tonle.changes WHERE reason = 'pack change' AND epoch > {before}"
    );
    assert_eq!(program.query(&read_again), "X-02");
    assert_no_row_of_a_case(&program, "pack change");
}

#[test]
fn files_that_are_read_again_do_not_bring_older_versions_back() {
    let sim = crate::support::program::primero(crate::support::program::cases_of_today(34, 60));
    let mut program = recent(Program::new(), None);
    let [old, new] = ["old.ndjson", "new.ndjson"].map(|name| program.path(name));
    let lines = || sim.cases().iter().map(|case| format!("{case}\n")).collect::<String>();
    fs::write(&old, lines()).unwrap();
    sim.edit(40).unwrap();
    fs::write(&new, lines()).unwrap();
    program.set_files("register", &[&old, &new], None);
    program.once(0);
    let before = program.query(EPOCH);
    let program = recent(program, Some(FIELD));
    program.once(0);
    assert_ne!(program.query(OF_NATIONALITIES), "0");
    program.assert_true_to_state();
    assert_changes_are_a_chain(&program);
    let changed =
        format!("SELECT DISTINCT indicator, reason FROM tonle.changes WHERE epoch > {before}");
    assert_eq!(program.query(&changed), "X-02|pack change");
    assert_no_row_of_a_case(&program, "pack change");
}
