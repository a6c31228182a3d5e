//! Sums of contributions in a snapshot, so that a start need not judge every record anew.
//!
//! They can always be made from the records again: those of another plan are passed over, and a start takes longer.

use crate::model::{Cell, FineCell, Measure, SharedMap, Sum};

use super::record::{put_word, take_word};

/// Most sums of a frame.
pub(super) const FRAME_SUMS_MAX: usize = 32 << 10;

/// Why a payload was refused, in fixed words.
type Refused = &'static str;

/// The sums of all workers, each cell once, ascending.
pub(super) fn joined(parts: Vec<SharedMap<FineCell, Measure>>) -> Vec<Sum> {
    let mut sums: Vec<Sum> = parts.into_iter().flat_map(SharedMap::into_sorted).collect();
    sums.sort_unstable_by_key(|(cell, _)| *cell);
    sums.dedup_by(|(cell, more), (kept, sum)| {
        let is_same = cell == kept;
        if is_same {
            sum.numerator += more.numerator;
            sum.denominator += more.denominator;
        }
        is_same
    });
    sums.retain(|(_, sum)| !sum.is_empty());
    sums
}

/// Adds as many sums as belong into a frame; gives how many. Of each cell what it is greater than the one before.
pub(super) fn put_sums(bytes: &mut Vec<u8>, sums: &[Sum]) -> usize {
    let count = sums.len().min(FRAME_SUMS_MAX);
    let mut before = 0;
    for (fine, sum) in &sums[..count] {
        let more = fine.cell().0 - before;
        before = fine.cell().0;
        let words = [(more >> 32) as u32, more as u32, fine.detail()];
        words.into_iter().for_each(|word| put_word(bytes, word));
        put_word(bytes, to_word(sum.numerator));
        put_word(bytes, to_word(sum.denominator));
    }
    count
}

/// The sums of a frame: ascending, none of them nothing.
pub(super) fn take_sums(mut bytes: &[u8]) -> Result<Vec<Sum>, Refused> {
    let mut sums: Vec<Sum> = Vec::new();
    let mut cell = 0_u64;
    while !bytes.is_empty() {
        if sums.len() == FRAME_SUMS_MAX {
            return Err("a frame has too many sums");
        }
        let mut word = || take_word(&mut bytes).ok_or("a sum is malformed");
        let more = u64::from(word()?) << 32 | u64::from(word()?);
        cell = cell.checked_add(more).ok_or("a sum lies in no cell")?;
        let fine = FineCell::new(Cell(cell), word()?);
        let sum = Measure { numerator: of_word(word()?), denominator: of_word(word()?) };
        if sum.is_empty() {
            return Err("a sum is nothing");
        }
        if sums.last().is_some_and(|(last, _)| *last >= fine) {
            return Err("sums are out of order");
        }
        sums.push((fine, sum));
    }
    Ok(sums)
}

fn to_word(number: i32) -> u32 {
    (number << 1 ^ number >> 31) as u32
}

fn of_word(word: u32) -> i32 {
    (word >> 1) as i32 ^ -((word & 1) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(cell: u64, detail: u32, numerator: i32, denominator: i32) -> Sum {
        (FineCell::new(Cell(cell), detail), Measure { numerator, denominator })
    }

    #[test]
    fn sums_come_back() {
        let sums = [
            sum(0, 1, -1, 0),
            sum(0, 2, i32::MIN, i32::MAX),
            sum(1 << 40, 0, 0, 1),
            sum(u64::MAX, u32::MAX, 1_000_000, 0),
        ];
        let mut bytes = Vec::new();
        assert_eq!(put_sums(&mut bytes, &sums), sums.len());
        assert_eq!(take_sums(&bytes).unwrap(), sums);
        for end in 1..bytes.len() {
            let whole = take_sums(&bytes[..end]).is_ok_and(|taken| sums.starts_with(&taken));
            assert!(whole || take_sums(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |sums: &[Sum]| {
            let mut bytes = Vec::new();
            put_sums(&mut bytes, sums);
            take_sums(&bytes).unwrap_err()
        };
        assert_eq!(refused(&[sum(1, 0, 0, 0)]), "a sum is nothing");
        assert_eq!(refused(&[sum(1, 1, 1, 0), sum(1, 0, 1, 0)]), "sums are out of order");
        let many: Vec<_> = (0..=FRAME_SUMS_MAX as u64).map(|cell| sum(cell, 0, 1, 0)).collect();
        let mut bytes = Vec::new();
        assert_eq!(put_sums(&mut bytes, &many), FRAME_SUMS_MAX);
        bytes.extend([0, 1, 0, 2, 0]);
        assert_eq!(take_sums(&bytes).unwrap_err(), "a frame has too many sums");
        let beyond = [
            [252, 255, 255, 255, 255, 252, 255, 255, 255, 255, 0, 2, 0],
            [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(
            take_sums(&[&beyond[0][..], &beyond[1][..5]].concat()).unwrap_err(),
            "a sum lies in no cell"
        );
    }

    #[test]
    fn what_several_workers_have_is_added_up() {
        let part = |sums: &[Sum]| sums.iter().copied().collect::<SharedMap<_, _>>();
        let parts = vec![
            part(&[sum(5, 0, 2, 1), sum(7, 0, 1, 0)]),
            part(&[sum(5, 0, 1, 0), sum(7, 0, -1, 0), sum(3, 9, 1, 0)]),
        ];
        assert_eq!(joined(parts), [sum(3, 9, 1, 0), sum(5, 0, 3, 1)]);
    }
}
