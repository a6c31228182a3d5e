//! A COMMIT whose reply is lost: the connection dies while the server is at it. Whether the tables are written is then
//! for the program to find out, and by itself.

use std::fs;

use super::disagree::last_epoch;
use super::matrix::{INSTANCES, put_small_pack, status, with_servers};
use super::{Holder, WAITING, assert_changes_are_a_chain};
use crate::support::line::Line;
use crate::support::program::{Program, assert_same_tables, cases_of_today, primero};

/// What becomes of the transaction of a reconcile whose connection was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The server has committed it before the program is there again.
    Committed,
    /// The server commits it while the program, which is there again, waits for its end.
    CommittedLate,
    /// The server has rolled it back.
    RolledBack,
}

#[test]
fn a_reconcile_that_was_committed_unheard_is_not_written_twice() {
    lose_reply(Fate::Committed);
}

#[test]
fn a_reconcile_that_is_committed_late_is_waited_for() {
    lose_reply(Fate::CommittedLate);
}

#[test]
fn a_reconcile_that_was_rolled_back_unheard_is_written_again() {
    lose_reply(Fate::RolledBack);
}

/// Every session of the program.
const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'tonle'";

/// The end of the transaction in which the tables are compared with a state that was deleted.
fn lose_reply(fate: Fate) {
    let sims = INSTANCES.iter().zip(71..).map(|((_, n), seed)| primero(cases_of_today(seed, *n)));
    let sims: Vec<_> = sims.collect();
    let mut program = with_servers(put_small_pack(Program::new()), &sims);
    let undisturbed = with_servers(program.elsewhere(), &sims);
    let loaded = |program: &Program| {
        program.once(0);
        fs::remove_dir_all(program.state()).unwrap();
        last_epoch(program)
    };
    let (before, before_undisturbed) = (loaded(&program), loaded(&undisturbed));
    sims.iter().for_each(|sim| drop(sim.edit(20).unwrap()));
    undisturbed.once(0);

    let url = program.url();
    let server = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).unwrap();
    let line = Line::to(server);
    let holder = Holder::of_commits(&mut program);
    let mut command = program.command(&["run"]);
    command.env("TONLE_DATABASE_URL", url.replace(server, &line.address()));
    program.spawn(command);
    holder.wait_for_program(&mut program);
    assert_eq!(program.query(&format!("SELECT query {WAITING}")), "COMMIT", "{fate:?}");
    line.cut();
    program.wait_until("it knows that the line is cut", |program| {
        program.log().contains("failed to write to postgres")
    });
    match fate {
        Fate::Committed => {
            holder.release(&mut program);
            program.wait_until("the session is over", |program| program.query(SESSIONS) == "0");
            assert_ne!(last_epoch(&program), before);
            line.mend();
        }
        Fate::CommittedLate => {
            line.mend();
            let waiting = format!("SELECT count(*) {WAITING}");
            program.wait_until("it waits for itself", |program| program.query(&waiting) == "2");
            assert_eq!(last_epoch(&program), before);
            holder.release(&mut program);
        }
        Fate::RolledBack => {
            holder.end_waiting(&mut program);
            holder.release(&mut program);
            assert_eq!(last_epoch(&program), before);
            line.mend();
        }
    }
    INSTANCES.iter().for_each(|(name, _)| program.wait_until_live(name));
    program.wait_until("the tables are compared", |program| {
        program.log().contains("reconciled the tables")
    });
    assert_eq!(program.stop(), 0, "{}", program.last_of_log());
    let log = program.log();
    assert!(log.contains("reached postgres again"), "{log}");
    let told: Vec<_> = log.lines().filter(|line| line.contains("reconciled the tables")).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    // Rows that an earlier attempt wrote are not counted a second time.
    assert_eq!(told[0].contains(" rows=0 "), fate != Fate::RolledBack, "{}", told[0]);

    // Both have read up to the same moment.
    for program in [&program, &undisturbed] {
        program.once(0);
        program.assert_true_to_state();
        assert_changes_are_a_chain(program);
    }
    assert_same_tables(&program.tables(), &undisturbed.tables());
    assert_same_tables(&program.descriptions(), &undisturbed.descriptions());
    assert_eq!(status(&program), status(&undisturbed));
    let ours = changes_after(&program, &before);
    assert!(ours.len() > 100, "{ours:#?}");
    assert_eq!(ours, changes_after(&undisturbed, &before_undisturbed));
}

/// Every change since an epoch, all by the same one, with its reason; but for the number of that epoch and its moment,
/// and for `revision`, which counts in how many epochs the first load came.
#[track_caller]
fn changes_after(program: &Program, epoch: &str) -> Vec<String> {
    let epochs = program.query(&format!(
        "SELECT count(*), min(reason) FROM tonle.epochs
          WHERE epoch > {epoch} AND rows_inserted + rows_updated + rows_deleted > 0"
    ));
    assert_eq!(epochs, "1|reconcile");
    let rows = program.query(&format!(
        "SELECT (to_jsonb(c) - '{{epoch,at,revision}}'::text[])::text
           FROM tonle.changes c WHERE epoch > {epoch} ORDER BY 1"
    ));
    rows.lines().map(str::to_owned).collect()
}
