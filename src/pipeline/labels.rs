//! Labels that a server sent, compared with those that the packs assert.

use super::Pipeline;
use crate::model::Code;
use crate::report::{self, Event};
use crate::source::FieldLabels;

/// Most differences of one instance that are told one by one.
const DIFFERENCES_TOLD_MAX: usize = 20;

impl Pipeline<'_> {
    /// Tells what the packs call otherwise, when that is new: in the log, and in `sync_status` until it is mended.
    pub(super) fn compare_labels(&mut self, instance: Code, labels: &[FieldLabels]) {
        let name = self.board.name(instance).to_owned();
        let instances = self.config.instance_definitions();
        let Some(this) = instances.iter().find(|one| one.name == name) else { return };
        let label_of = |field: &str, id: &str| FieldLabels::label(labels, field, id);
        let mut findings = self.plan.definition().label_findings(this, label_of);
        // What the role may not read, or the server does not have, can not contradict.
        findings.retain(|finding| finding.found.is_some());
        let what = findings.first().map(|first| match findings.len() {
            1 => first.to_string(),
            count => format!("{first}; and {} more labels differ", count - 1),
        });
        if !self.board.labels_differ(instance, what) {
            return;
        }
        for finding in findings.iter().take(DIFFERENCES_TOLD_MAX) {
            report::emit(&Event::LabelDiffers {
                instance: &name,
                concept: &finding.concept,
                field: &finding.field,
                id: &finding.id,
                expected: &finding.expected,
                found: finding.found.as_deref().unwrap_or_default(),
            });
        }
    }
}
