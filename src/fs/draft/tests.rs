use super::image::SMALL_BYTES;
use super::*;
use crate::bucket::ETag;

fn base(size: u64) -> Pinned {
    Pinned { key: "k".into(), etag: ETag::new("v1"), size }
}

/// A draft in a file.
fn draft_over(size: u64) -> (tempfile::TempDir, Draft) {
    draft_with(0, size)
}

fn draft_with(memory_bytes: u64, size: u64) -> (tempfile::TempDir, Draft) {
    let directory = tempfile::tempdir().unwrap();
    let space = Space::new(directory.path(), memory_bytes);
    let draft = Draft::create(&space, Some(base(size))).unwrap();
    (directory, draft)
}

/// One in a file, and one in memory.
fn drafts_over(size: u64) -> [(tempfile::TempDir, Draft); 2] {
    [draft_over(size), draft_with(SMALL_BYTES, size)]
}

fn files_in(directory: &tempfile::TempDir) -> usize {
    std::fs::read_dir(directory.path()).unwrap().count()
}

fn only(range: Range<u64>) -> Vec<Range<u64>> {
    vec![range]
}

#[test]
fn a_write_in_the_middle_leaves_the_base_around_it() {
    for (_directory, mut draft) in drafts_over(100) {
        draft.write(40, b"0123456789").unwrap();
        assert_eq!(draft.pieces(0..200), [Piece::Base(0..40), Piece::Local(40..50), Piece::Base(50..100)]);
        assert_eq!(draft.size(), 100);
    }
}

#[test]
fn what_a_truncation_cut_off_never_comes_back() {
    for (_directory, mut draft) in drafts_over(100) {
        draft.set_size(10).unwrap();
        draft.set_size(50).unwrap();
        assert_eq!(draft.pieces(0..100), [Piece::Base(0..10), Piece::Local(10..50)]);
        assert_eq!(draft.read_local(10..50).unwrap(), vec![0; 40]);
    }
}

#[test]
fn an_emptied_draft_needs_no_base() {
    for (_directory, mut draft) in drafts_over(100) {
        draft.set_size(0).unwrap();
        assert!(draft.base().is_none());
        draft.write(0, b"x").unwrap();
        assert_eq!(draft.missing(100), None);
    }
}

#[test]
fn a_fill_does_not_overwrite_what_was_written() {
    for (_directory, mut draft) in drafts_over(10) {
        draft.write(4, b"XX").unwrap();
        draft.fill(0, b"abcdefghij").unwrap();
        assert_eq!(draft.read_local(0..10).unwrap(), &b"abcdXXghij"[..]);
        assert_eq!(draft.missing(100), None);
    }
}

#[test]
fn missing_is_asked_for_in_steps() {
    for (_directory, mut draft) in drafts_over(100) {
        draft.write(0, b"x").unwrap();
        assert_eq!(draft.missing(30), Some(1..31));
    }
}

#[test]
fn what_is_fetched_is_no_change_and_what_is_written_again_is() {
    for (_directory, mut draft) in drafts_over(100) {
        draft.write(10, b"0123456789").unwrap();
        draft.fill(20, &[7; 30]).unwrap();
        assert_eq!(draft.untouched(), [0..10, 20..100]);
        assert_eq!(draft.missing_in(5..60), [5..10, 50..60]);
        draft.set_size(15).unwrap();
        draft.set_size(90).unwrap();
        assert_eq!(draft.untouched(), only(0..10), "what was cut off is no longer the base's");
    }
}

#[test]
fn after_a_commit_only_what_is_written_next_is_a_change() {
    for (_directory, mut draft) in drafts_over(100) {
        draft.write(90, &[1; 20]).unwrap();
        draft.set_size(200).unwrap();
        draft.advance_base(base(200));
        assert_eq!(draft.untouched(), only(0..200));
        assert_eq!(draft.missing_in(0..200), only(0..90), "holes behind the old version are the file's own");
        draft.write(150, b"x").unwrap();
        assert_eq!(draft.untouched(), [0..150, 151..200]);
    }
}

#[test]
fn growth_is_what_was_added_where_nothing_else_has_changed() {
    for (_directory, mut draft) in drafts_over(100) {
        assert_eq!(draft.growth(), None);
        draft.fill(0, &[7; 30]).unwrap();
        draft.write(110, b"x").unwrap();
        assert_eq!(draft.growth(), Some(100..111), "zeros are in between");
        draft.set_size(50).unwrap();
        draft.set_size(111).unwrap();
        assert_eq!(draft.growth(), None, "what was cut off is not there any more");
    }
    for (_directory, mut draft) in drafts_over(100) {
        draft.write(99, b"xy").unwrap();
        assert_eq!(draft.growth(), None);
    }
}

#[test]
fn what_is_written_while_bytes_are_sent_is_a_change_to_them() {
    for (_directory, mut draft) in drafts_over(100) {
        draft.write(100, &[1; 20]).unwrap();
        draft.begin_sending();
        draft.write(120, &[2; 10]).unwrap();
        draft.stand_on(base(120));
        assert_eq!((draft.growth(), draft.untouched()), (Some(120..130), only(0..120)));
        assert_eq!(draft.missing_in(0..130), only(0..100));
        draft.begin_sending();
        draft.write(110, b"x").unwrap();
        draft.stand_on(base(130));
        assert_eq!((draft.growth(), draft.untouched()), (None, vec![0..110, 111..130]));
        // Not answered before the file was cut.
        draft.write(130, &[3; 10]).unwrap();
        draft.begin_sending();
        draft.set_size(50).unwrap();
        draft.set_size(140).unwrap();
        draft.stand_on(base(140));
        assert_eq!((draft.growth(), draft.untouched()), (None, only(0..50)));
        assert_eq!(draft.pieces(0..140), [Piece::Base(0..50), Piece::Local(50..140)]);
    }
}

#[test]
fn punching_a_hole_zeroes_and_does_not_grow() {
    for (_directory, mut draft) in drafts_over(10) {
        draft.punch(5..50).unwrap();
        assert_eq!(draft.size(), 10);
        assert_eq!(draft.pieces(0..10), [Piece::Base(0..5), Piece::Local(5..10)]);
    }
}

#[test]
fn what_the_journal_answers_for_stays_as_it_is() {
    let (directory, mut draft) = draft_over(0);
    draft.write(0, b"promised").unwrap();
    let path = draft.path().unwrap();
    let (promised, _) = draft.keep().unwrap();
    promised.set_promised(Some(8));
    // Behind it the same file will do; of it, nothing may change.
    draft.write(8, b" and more").unwrap();
    assert_eq!(draft.path().unwrap(), path);
    draft.write(3, b"###").unwrap();
    assert_eq!(draft.read_local(0..17).unwrap(), &b"pro###ed and more"[..]);
    draft.set_size(0).unwrap();
    assert_eq!(&std::fs::read(path).unwrap()[..8], b"promised");
    drop(draft);
    assert_eq!(files_in(&directory), 1);
    promised.set_promised(None);
    drop(promised);
    assert_eq!(files_in(&directory), 0);
}

#[test]
fn what_the_journal_has_itself_stays_as_it_was() {
    let (directory, mut draft) = draft_with(SMALL_BYTES, 0);
    draft.write(0, b"promised").unwrap();
    let (Kept::Bytes(promised), None) = draft.keep().unwrap() else { panic!("a small draft lies in a file") };
    draft.write(3, b"###").unwrap();
    assert_eq!(promised, &b"promised"[..]);
    let space = Space::new(directory.path(), 0);
    let (mut resumed, kept) = Draft::resume(&space, &DraftBytes::Here { bytes: promised }, 8).unwrap();
    resumed.write(8, b"!").unwrap();
    assert_eq!(resumed.read_local(0..9).unwrap(), &b"promised!"[..]);
    assert_eq!(kept.promised(), Some(8));
}

#[test]
fn what_is_not_small_any_more_goes_on_in_a_file() {
    let (directory, mut draft) = draft_with(SMALL_BYTES, 0);
    draft.write(0, b"begin").unwrap();
    assert_eq!(files_in(&directory), 0);
    draft.write(SMALL_BYTES, b"end").unwrap();
    assert_eq!(files_in(&directory), 1);
    draft.set_size(SMALL_BYTES + 2).unwrap();
    let bytes = draft.read_local(0..SMALL_BYTES + 2).unwrap();
    let (begin, end) = (&bytes[..5], &bytes[SMALL_BYTES as usize..]);
    assert_eq!((begin, end), (&b"begin"[..], &b"en"[..]));
    assert!(bytes[5..SMALL_BYTES as usize].iter().all(|byte| *byte == 0));
}

#[test]
fn a_small_draft_takes_memory_only_while_there_is_some() {
    let directory = tempfile::tempdir().unwrap();
    let space = Space::new(directory.path(), 6 << 10);
    let draft = || Draft::create(&space, Some(base(4000))).unwrap();
    let first = draft();
    let second = draft();
    assert_eq!(files_in(&directory), 1, "the second one lies in a file");
    drop((first, second));
    let mut third = draft();
    assert_eq!(files_in(&directory), 0, "what the first one had was given back");
    third.set_size(10).unwrap();
    let _fourth = draft();
    assert_eq!(files_in(&directory), 0, "and what the third one was cut by");
    third.write(10, &[1; 3000]).unwrap();
    assert_eq!(files_in(&directory), 1, "there is none to grow in");
    assert_eq!(third.read_local(10..3010).unwrap(), vec![1; 3000]);
}

#[test]
fn the_draft_file_goes_with_the_draft() {
    let (directory, draft) = draft_over(10);
    drop(draft);
    assert_eq!(files_in(&directory), 0);
}
