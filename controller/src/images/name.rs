//! Names of images: `counter` means `localhost/counter:latest`, as podman has it.

use godwit_proto::id::ImageId;

use crate::store::ImageRow;

/// The whole name that a short one stands for.
pub fn whole(name: &str) -> String {
    let (registry, _) = name.split_once('/').unwrap_or_default();
    let has_registry = registry == "localhost" || registry.contains(['.', ':']);
    let prefix = if has_registry { "" } else { "localhost/" };
    let last = name.rsplit('/').next().unwrap_or(name);
    let suffix = if last.contains([':', '@']) { "" } else { ":latest" };
    format!("{prefix}{name}{suffix}")
}

/// True when `name` can be an image's name, short or whole.
pub fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/:@".contains(&b);
    // A tag may carry capitals.
    (1..=255).contains(&name.len())
        && name.bytes().all(|b| plain(b) || b.is_ascii_uppercase())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.ends_with(|last: char| last.is_ascii_alphanumeric())
}

/// How a reference fits the images that there are.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// One of them.
    One(&'a ImageRow),
    /// None.
    None,
    /// Several, by these ids.
    Several(Vec<&'a ImageId>),
}

/// The image that `reference` means: a name, an id, or the first digits of an id.
pub fn find<'a>(images: &'a [ImageRow], reference: &str) -> Found<'a> {
    let name = whole(reference);
    let path = name.strip_prefix("localhost/").unwrap_or(&name);
    let by_id = |image: &&ImageRow| {
        let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
        digits.len() >= 6 && image.id.as_str().starts_with(digits)
    };
    let exact = |image: &&ImageRow| image.names.contains(&name);
    let by_end = |image: &&ImageRow| {
        image.names.iter().any(|full| full.strip_suffix(path).is_some_and(|r| r.ends_with('/')))
    };
    // An exact name outranks an id's digits, which outrank a name without its registry.
    let fitting = [images.iter().filter(exact).collect(), images.iter().filter(by_id).collect()]
        .into_iter()
        .chain([images.iter().filter(by_end).collect::<Vec<_>>()])
        .find(|fitting: &Vec<_>| !fitting.is_empty())
        .unwrap_or_default();
    match fitting[..] {
        [] => Found::None,
        [image] => Found::One(image),
        _ => Found::Several(fitting.iter().map(|image| &image.id).collect()),
    }
}

#[cfg(test)]
mod tests {
    use godwit_proto::id::Tenant;
    use jiff::Timestamp;

    use super::*;

    fn image(digit: &str, name: &str) -> ImageRow {
        ImageRow {
            tenant: Tenant::default_tenant(),
            id: digit.repeat(64).parse().unwrap(),
            names: vec![name.into()],
            arch: "amd64".into(),
            os: "linux".into(),
            size_bytes: 0,
            archive_bytes: 0,
            created: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_short_name_is_completed_as_podman_does() {
        for (short, full) in [
            ("counter", "localhost/counter:latest"),
            ("counter:2", "localhost/counter:2"),
            ("team/counter", "localhost/team/counter:latest"),
            ("localhost/counter", "localhost/counter:latest"),
            ("hub:5000/counter", "hub:5000/counter:latest"),
            ("quay.io/a/b:1", "quay.io/a/b:1"),
        ] {
            assert_eq!(whole(short), full);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in ["", "a b", "../x", "x/", "ä", "x\n", &"x".repeat(256)] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_name("hub:5000/team/counter:V1"));
    }

    #[test]
    fn an_image_is_found_by_name_or_by_digits() {
        let images = [
            image("a", "localhost/counter:latest"),
            image("b", "docker.io/library/redis:7"),
            image("c", "quay.io/x/counter:2"),
        ];
        let found = |reference: &str| match find(&images, reference) {
            Found::One(image) => image.id.as_str()[..1].to_owned(),
            Found::None => "none".into(),
            Found::Several(ids) => format!("{} images", ids.len()),
        };
        assert_eq!(found("counter"), "a");
        assert_eq!(found("counter:2"), "c");
        assert_eq!(found("redis:7"), "b");
        assert_eq!(found("library/redis:7"), "b");
        assert_eq!(found("bbbbbb"), "b");
        assert_eq!(found(&format!("sha256:{}", "c".repeat(64))), "c");
        assert_eq!(found("bbbbb"), "none", "five digits are too few");
        assert_eq!(found("edis:7"), "none");
    }

    #[test]
    fn a_reference_that_fits_several_names_them() {
        let images = [image("a", "quay.io/x/app:1"), image("b", "ghcr.io/y/app:1")];
        let ids = vec![&images[0].id, &images[1].id];
        assert_eq!(find(&images, "app:1"), Found::Several(ids));
    }
}
