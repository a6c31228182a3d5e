//! What a census makes of lists that are whole, and of such as are not.

use super::*;
use crate::model::RecordChange;
use crate::source::ServerSettings;
use crate::source::census::Census;

const COUNT: usize = 240;

/// Created at about one a second, so that pages of 50 take a few requests, some seconds holding many.
fn created(number: usize) -> Value {
    let second = if number < 120 { number / 60 } else { number - 60 };
    let (minute, second) = (second / 60, second % 60);
    let mut case = case(number, "2026-01-01T00:00:05.000Z");
    case["created_at"] = json!(format!("2025-12-01T00:{minute:02}:{second:02}.500Z"));
    case
}

/// A poll that has read everything, with other settings of its census.
async fn loaded(
    set: impl FnOnce(&mut ServerSettings),
    twist: impl FnMut(&Call) -> Option<Response> + Send + 'static,
) -> Stage {
    let mut stage = stage((0..COUNT).map(created).collect(), twist).await;
    let mut settings = stage.settings.clone();
    set(&mut settings);
    stage.poll.as_mut().unwrap().census = Census::new(&settings);
    let outcome = stage.run().await;
    assert!(outcome.result.is_ok() && outcome.censuses.is_empty(), "{:?}", outcome.censuses);
    assert_eq!(outcome.keys().len(), COUNT);
    // The next run looks again at once.
    stage.poll.as_mut().unwrap().census = Census::new(&settings);
    stage
}

/// Deletes every `step`-th case, and gives how many those were.
fn delete_every(stage: &Stage, step: usize) -> u64 {
    let mut world = stage.world.lock().unwrap();
    let mut number = 0;
    world.cases.retain(|_| {
        number += 1;
        number % step != 0
    });
    (COUNT - world.cases.len()) as u64
}

fn is_by_creation(call: &Call) -> bool {
    call.query.contains_key("created_at")
}

fn is_whole(call: &Call) -> bool {
    call.query.get("order_by").is_some_and(|order| order == "unique_identifier")
}

/// The keys that were handed on as gone, and as there.
fn changes(outcome: &Outcome) -> (Vec<RecordKey>, Vec<RecordKey>) {
    let all = outcome.batches.iter().flat_map(|batch| &batch.changes);
    let (gone, there): (Vec<_>, Vec<_>) = all.partition(|change| change.case.is_none());
    let keys = |changes: Vec<&RecordChange>| changes.iter().map(|change| change.key).collect();
    (keys(gone), keys(there))
}

#[tokio::test]
async fn records_that_both_lists_lack_are_gone() {
    let mut stage = loaded(|_| {}, honest).await;
    let quiet = stage.run().await;
    assert!(quiet.censuses.is_empty(), "as many as are known: nothing is listed");
    assert!(!stage.calls().iter().any(|call| is_by_creation(call) || is_whole(call)));

    let mut stage = loaded(|_| {}, honest).await;
    let deleted = delete_every(&stage, 50);
    let outcome = stage.run().await;
    assert!(outcome.result.is_ok() && outcome.troubles.is_empty(), "{}", outcome.trouble());
    assert_eq!(outcome.censuses, [(240, deleted, false)]);
    let (gone, there) = changes(&outcome);
    assert_eq!((gone.len() as u64, there.len()), (deleted, 0));
    let decoder = crate::source::decode::tests::decoder();
    let expected = [49, 99, 149, 199]
        .map(|number| decoder.key_of(created(number)["id"].as_str().unwrap()).unwrap());
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(gone, expected);
    let batch = outcome.batches.last().unwrap();
    assert!(batch.cursor.first_load_done && batch.cursor.watermark.is_some());
    // Nothing is kept of an id: the lists asked for no field but the time.
    let lists = stage.calls().into_iter().filter(|call| is_by_creation(call) || is_whole(call));
    assert!(lists.into_iter().all(|call| call.query["fields"] == "created_at"));

    let again = stage.run().await;
    assert!(again.censuses.is_empty() && again.batches.is_empty());
}

#[tokio::test]
async fn one_list_that_hides_records_lets_nobody_go() {
    type IsHidden = fn(&Call) -> bool;
    for (hidden, is_withheld) in [(is_by_creation as IsHidden, false), (is_whole, true)] {
        let mut stage = loaded(|_| {}, move |call: &Call| hidden(call).then(empty_page)).await;
        let deleted = delete_every(&stage, 100);
        let outcome = stage.run().await;
        assert!(outcome.troubles.is_empty(), "{}", outcome.trouble());
        assert_eq!(outcome.censuses, [(240, deleted, is_withheld)], "only those that are gone");
        let expected = if is_withheld { 0 } else { deleted };
        assert_eq!(changes(&outcome).0.len() as u64, expected);
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_right_ends_the_census_and_nothing_else() {
    let short = |call: &Call| {
        let text = json!({"data": [], "metadata": {"total": 200, "per": 50}}).to_string();
        is_whole(call).then(|| text.into_response())
    };
    let bare = |call: &Call| {
        let row = |n: usize| json!({"id": case(n, "")["id"]});
        let rows: Vec<_> = (0..50).map(row).collect();
        let text = json!({"data": rows, "metadata": {"total": 200, "per": 50}}).to_string();
        is_by_creation(call).then(|| text.into_response())
    };
    let shuffled = |call: &Call| {
        let rows: Vec<_> = (0..50).rev().map(|n| created(n + 100)).collect();
        let text = json!({"data": rows, "metadata": {"total": 200, "per": 50}}).to_string();
        is_by_creation(call).then(|| text.into_response())
    };
    let broken = |call: &Call| is_whole(call).then(|| status(500, &[]));
    let no_json = |call: &Call| is_by_creation(call).then(|| "hush".into_response());
    let twists: [(&str, Twist); 5] = [
        ("fewer records than it says", Box::new(short)),
        ("needs to read created_at", Box::new(bare)),
        ("not in the order", Box::new(shuffled)),
        ("500", Box::new(broken)),
        ("not the JSON", Box::new(no_json)),
    ];
    for (words, twist) in twists {
        let mut stage = loaded(|_| {}, twist).await;
        delete_every(&stage, 100);
        let outcome = stage.run().await;
        assert!(outcome.result.is_ok(), "{words}: {:?}", outcome.result);
        assert!(outcome.censuses.is_empty() && outcome.batches.is_empty(), "{words}");
        let trouble = outcome.trouble();
        assert!(trouble.contains(words) && trouble.contains("taking a census"), "{trouble}");
        assert!(!trouble.contains("hush"), "{trouble}");
    }
}

#[tokio::test]
async fn an_error_that_looks_like_the_end_of_both_lists_lets_nobody_go() {
    // As a server answers whose database fails for a moment: 200, and nothing there.
    for after in 0..6 {
        let mut lists = 0;
        let lying = move |call: &Call| {
            lists += usize::from(is_by_creation(call) || is_whole(call));
            (lists > after && lists <= after + 3 && (is_by_creation(call) || is_whole(call)))
                .then(empty_page)
        };
        let mut stage = loaded(|_| {}, lying).await;
        let deleted = delete_every(&stage, 100);
        let outcome = stage.run().await;
        assert!(outcome.result.is_ok(), "{:?}", outcome.result);
        let gone = changes(&outcome).0.len() as u64;
        let is_withheld = outcome.censuses.iter().any(|(_, _, is_withheld)| *is_withheld);
        let is_noticed = is_withheld || !outcome.troubles.is_empty();
        assert!(gone == deleted || gone == 0 && is_noticed, "{after}: {gone}");
    }
    let all_lie = |call: &Call| (is_by_creation(call) || is_whole(call)).then(empty_page);
    let mut stage = stage_of_few(all_lie).await;
    stage.world.lock().unwrap().cases.pop();
    let outcome = stage.run().await;
    assert_eq!(outcome.censuses, [(12, 12, true)]);
    assert!(outcome.batches.is_empty());
    // And one that has lost all, which a person has to believe.
    let mut stage = stage_of_few(honest).await;
    stage.world.lock().unwrap().cases.clear();
    let outcome = stage.run().await;
    assert!(changes(&outcome).0.is_empty());
    assert!(outcome.censuses.is_empty() || outcome.censuses == [(12, 12, true)]);
}

async fn stage_of_few(twist: impl FnMut(&Call) -> Option<Response> + Send + 'static) -> Stage {
    let mut stage = stage((0..12).map(created).collect(), twist).await;
    stage.run().await;
    let settings = stage.settings.clone();
    stage.poll.as_mut().unwrap().census = Census::new(&settings);
    stage
}

#[tokio::test]
async fn a_census_whose_last_question_fails_ends_without_a_conclusion() {
    let mut counts = 0;
    let broken = move |call: &Call| {
        // The look that begins it is answered, as are the polls.
        let is_count = call.query.get("per").is_some_and(|per| per == "1")
            && !call.query.contains_key("order_by")
            && !call.query.contains_key("last_updated_at");
        counts += usize::from(is_count);
        (is_count && counts > 1).then(|| status(500, &[]))
    };
    let mut stage = loaded(|_| {}, broken).await;
    delete_every(&stage, 100);
    let outcome = stage.run().await;
    assert!(outcome.result.is_ok(), "{:?}", outcome.result);
    assert!(outcome.censuses.is_empty() && outcome.batches.is_empty());
    assert!(outcome.trouble().contains("taking a census"), "{}", outcome.trouble());
}

#[tokio::test]
async fn a_list_whose_end_is_deleted_meanwhile_is_begun_again() {
    // From one later second on there is nothing, as if its record had just gone; a list begun anew never gets there.
    let (mut later, mut bound, mut is_anew) = (0, None, false);
    let gone = move |call: &Call| {
        if !is_by_creation(call) {
            return None;
        }
        let from = &call.query["created_at"];
        if from.starts_with("1970") {
            is_anew = bound.is_some();
            return None;
        }
        later += 1;
        if later == 2 {
            bound = Some(from.clone());
        }
        (!is_anew && bound.as_ref() == Some(from)).then(empty_page)
    };
    let mut stage = loaded(|_| {}, gone).await;
    let deleted = delete_every(&stage, 100);
    let outcome = stage.run().await;
    assert_eq!(outcome.troubles.len(), 1, "{}", outcome.trouble());
    assert_eq!(outcome.censuses, [(240, deleted, false)]);
}

#[tokio::test]
async fn a_record_that_only_the_list_without_a_filter_shows_is_read() {
    let mut stage = loaded(|_| {}, honest).await;
    let mut odd = created(998);
    odd["last_updated_at"] = json!("2024-05-05T05:05:05.000Z");
    odd["created_at"] = json!("1969-05-05T05:05:05.000Z");
    stage.world.lock().unwrap().cases.push(odd);
    delete_every(&stage, 100);
    let outcome = stage.run().await;
    let (gone, there) = changes(&outcome);
    assert_eq!((gone.len(), there.len()), (2, 1), "{}", outcome.trouble());
}

#[tokio::test]
async fn more_than_a_share_stays_until_the_setting_allows_it() {
    let mut stage = loaded(|_| {}, honest).await;
    let deleted = delete_every(&stage, 8);
    assert_eq!(deleted, 30, "more than a few, and more than 5 percent");
    let outcome = stage.run().await;
    assert_eq!(outcome.censuses, [(240, 30, true)]);
    assert!(outcome.batches.is_empty());
    let mut settings = stage.settings.clone();
    settings.gone_percent_max = 20;
    stage.poll.as_mut().unwrap().census = Census::new(&settings);
    let outcome = stage.run().await;
    assert_eq!(outcome.censuses, [(240, 30, false)]);
    assert_eq!(changes(&outcome).0.len(), 30);
}

#[tokio::test]
async fn a_listed_record_that_nobody_knew_is_read() {
    let mut stage = loaded(|_| {}, honest).await;
    let mut late = created(999);
    // Imported with the stamps it had elsewhere, long before what was read.
    late["last_updated_at"] = json!("2024-05-05T05:05:05.000Z");
    late["created_at"] = json!("2024-05-05T05:05:05.000Z");
    stage.world.lock().unwrap().cases.push(late);
    let outcome = stage.run().await;
    let (gone, there) = changes(&outcome);
    assert_eq!((gone.len(), there.len()), (0, 1));
    assert_eq!(outcome.censuses, [(241, 0, false)]);
}
