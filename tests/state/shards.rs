//! Snapshots by shard: whole shards that are lost or moved are named, and whoever reads, reads the
//! same.

use std::fs;

use super::world::{
    World, frames, sealed, settings, small_world, small_world_made, view, view_with,
};

/// A frame of records of one shard.
const SHARD: u8 = 12;

fn shards(bytes: &[u8]) -> Vec<(usize, usize, u8)> {
    let shard = |(from, to, tag)| (tag == SHARD).then(|| (from, to, bytes[from + 9]));
    frames(bytes).into_iter().filter_map(shard).collect()
}

/// How many threads compute and how many decode is nowhere in the files: shards are told from keys
/// alone, of which there are 256 for ever, and each worker takes those that are its own.
#[test]
fn any_number_of_threads_reads_the_same() {
    for how in [settings, sealed] {
        let world = small_world_made(how, true);
        let published = Some(world.last());
        for decoders in [1, 2, 3, 5, 8] {
            let settings = how(world.directory.path()).with_decoders(decoders);
            world.check(&view_with(&settings, published).unwrap(), published);
        }
    }
}

#[test]
fn a_frame_holds_records_of_one_shard_and_shards_ascend() {
    let world = small_world(true);
    let bytes = fs::read(world.newest("snap")).unwrap();
    let shards: Vec<u8> = shards(&bytes).into_iter().map(|(_, _, shard)| shard).collect();
    assert!(shards.len() > 3 && shards.is_sorted(), "{shards:?}");
}

fn warned(world: &World, bytes: &[u8], expected: &str) {
    fs::write(world.newest("snap"), bytes).unwrap();
    for decoders in [1, 4] {
        let settings = settings(world.directory.path()).with_decoders(decoders);
        let restored = view_with(&settings, Some(world.last())).unwrap();
        world.check(&restored, Some(world.last()));
        let [warning] = &restored.warnings[..] else { panic!("{:?}", restored.warnings) };
        assert!(warning.contains(expected), "expected {expected} in: {warning}");
    }
}

#[test]
fn a_shard_that_is_missing_or_moved_is_named() {
    let world = small_world(true);
    let path = world.newest("snap");
    let whole = fs::read(&path).unwrap();
    let all = shards(&whole);
    for (n, (from, to, shard)) in all.iter().copied().enumerate() {
        let without = [&whole[..from], &whole[to..]].concat();
        warned(&world, &without, &format!("shard {shard} has 0 records here, and 1 are counted"));
        let twice = [&whole[..to], &whole[from..]].concat();
        warned(&world, &twice, &format!("shard {shard} lies too late"));
        if let Some((_, end, _)) = all.get(n + 1) {
            let parts = [&whole[..from], &whole[to..*end], &whole[from..to], &whole[*end..]];
            warned(&world, &parts.concat(), &format!("shard {shard} lies too late"));
        }
        // Under the number of another shard, with the checksum that belongs to it.
        let mut renamed = whole.clone();
        renamed[from + 9] = shard.wrapping_add(1);
        let payload = (to - from - 8) as u32;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&payload.to_le_bytes());
        crc.update(&renamed[from + 8..to]);
        renamed[from + 4..from + 8].copy_from_slice(&crc.finalize().to_le_bytes());
        warned(&world, &renamed, &format!("byte {from}: a record lies in another shard"));
    }
    fs::write(&path, &whole).unwrap();
    assert!(view(world.directory.path(), Some(world.last())).unwrap().warnings.is_empty());
}
