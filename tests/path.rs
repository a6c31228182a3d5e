//! End to end: simulated servers over HTTP, the real program, a real Postgres.

use crate::support::program::{Program, cases_of_today, primero};

#[test]
fn what_servers_hold_arrives_once() {
    let (kampot, takeo) = (primero(cases_of_today(1, 120)), primero(cases_of_today(2, 80)));
    let program = Program::new().server("kampot", &kampot).server("takeo", &takeo);
    program.once(0);
    assert_eq!(program.query("SELECT sum(cases_known) FROM tonle.sync_status"), "200");
    program.assert_true_to_state();
}
