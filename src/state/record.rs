//! Records in a payload: the 16 bytes of a key, the number of words plus one (0: the record is
//! gone), the words.
//!
//! Written by hand, as a million of them are read at a restart; the numbers are the same varints as
//! bincode's.

use crate::model::{CASE_WORDS_MAX, Case, RecordKey};

use super::format::TooLarge;
use super::frame::FRAME_BYTES_GOAL;
use super::translation::Translation;

/// Most records of a frame.
pub(super) const FRAME_RECORDS_MAX: usize = 64 << 10;

/// The fewest bytes of a record: its key, the number of its words, the instance.
pub(super) const RECORD_BYTES_MIN: u64 = 18;

/// Why a payload was refused, in fixed words.
type Refused = &'static str;

/// Adds records up to the goal of a frame; gives how many.
pub(super) fn put_records<'a>(
    bytes: &mut Vec<u8>,
    records: impl Iterator<Item = (RecordKey, Option<&'a Case>)>,
) -> Result<usize, TooLarge> {
    let end = bytes.len() + FRAME_BYTES_GOAL;
    let mut count = 0;
    for (key, case) in records {
        if case.is_some_and(|case| case.words().len() > CASE_WORDS_MAX) {
            return Err(TooLarge("a case"));
        }
        put_record(bytes, key, case);
        count += 1;
        if bytes.len() >= end || count == FRAME_RECORDS_MAX {
            break;
        }
    }
    Ok(count)
}

pub(super) fn put_word(bytes: &mut Vec<u8>, word: u32) {
    match word {
        0..=250 => bytes.push(word as u8),
        251..=0xffff => {
            bytes.push(251);
            bytes.extend((word as u16).to_le_bytes());
        }
        _ => {
            bytes.push(252);
            bytes.extend(word.to_le_bytes());
        }
    }
}

pub(super) fn take_word(bytes: &mut &[u8]) -> Option<u32> {
    let (first, rest) = bytes.split_first()?;
    match *first {
        word @ 0..=250 => {
            *bytes = rest;
            Some(u32::from(word))
        }
        251 => {
            let (word, rest) = rest.split_first_chunk()?;
            *bytes = rest;
            Some(u32::from(u16::from_le_bytes(*word)))
        }
        252 => {
            let (word, rest) = rest.split_first_chunk()?;
            *bytes = rest;
            Some(u32::from_le_bytes(*word))
        }
        _ => None,
    }
}

fn put_record(bytes: &mut Vec<u8>, key: RecordKey, case: Option<&Case>) {
    bytes.extend(key.to_bytes());
    let Some(case) = case else { return bytes.push(0) };
    let words = case.words();
    put_word(bytes, words.len() as u32 + 1);
    for word in words {
        put_word(bytes, *word);
    }
}

/// Takes records to the end of the payload, giving each to `keep`.
pub(super) fn take_records(
    mut bytes: &[u8],
    translation: &Translation,
    mut keep: impl FnMut(RecordKey, Option<Case>) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let mut words = Vec::new();
    while !bytes.is_empty() {
        let (key, rest) = bytes.split_first_chunk().ok_or("a frame ends within a record")?;
        bytes = rest;
        let count = take_word(&mut bytes).ok_or("a frame ends within a record")? as usize;
        let case = if count == 0 {
            None
        } else {
            if count > bytes.len() + 1 || count - 1 > CASE_WORDS_MAX {
                return Err("the length of a case is impossible");
            }
            words.clear();
            for _ in 1..count {
                words.push(take_word(&mut bytes).ok_or("a frame ends within a record")?);
            }
            Some(translation.case(&words).ok_or("a case does not have the layout of its schema")?)
        };
        keep(RecordKey::from_bytes(*key), case)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        for word in [0, 250, 251, 0xffff, 0x1_0000, u32::MAX] {
            let mut bytes = Vec::new();
            put_word(&mut bytes, word);
            assert_eq!(take_word(&mut &bytes[..]), Some(word));
            assert_eq!(take_word(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(take_word(&mut &[253, 0, 0, 0, 0, 0, 0, 0, 0][..]), None);
    }
}
