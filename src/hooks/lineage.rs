//! Which hooks had a hand in an object, as its metadata says: for who meets it later than its event.

use crate::bucket::Metadata;
use crate::bucket::attributes::LINEAGE;

/// Names of hooks hold no comma.
const SEPARATOR: &str = ",";

/// Notes these hooks, oldest first, in an object's metadata.
pub(super) fn note(metadata: &mut Metadata, lineage: &[String]) {
    metadata.insert(LINEAGE.to_owned(), lineage.join(SEPARATOR));
}

/// The hooks that an object's metadata names, oldest first.
pub(super) fn of(metadata: &Metadata) -> Vec<String> {
    let noted = metadata.get(LINEAGE).map_or("", String::as_str);
    noted.split(SEPARATOR).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read() {
        for lineage in [vec![], vec!["a".to_owned()], vec!["unzip".to_owned(), "a_b-c".to_owned()]] {
            let mut metadata = Metadata::new();
            note(&mut metadata, &lineage);
            assert_eq!(of(&metadata), lineage);
        }
        assert_eq!(of(&Metadata::new()), Vec::<String>::new());
    }
}
