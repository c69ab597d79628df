use super::*;

/// A tar of files in the given order.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","config":{}}"#;

fn config_id(config: &[u8]) -> String {
    hex(&Sha256::digest(config))
}

/// A docker-archive as podman writes it: layers first, `manifest.json` last.
pub(crate) fn docker_archive(name: Option<&str>, layer: &[u8]) -> (ImageId, Vec<u8>) {
    let id = config_id(CONFIG);
    let tags = name.map_or("null".into(), |name| format!(r#"["{name}"]"#));
    let manifest = format!(r#"[{{"Config":"{id}.json","RepoTags":{tags},"Layers":["l.tar"]}}]"#);
    let files: [(&str, &[u8]); 3] =
        [("l.tar", layer), (&format!("{id}.json"), CONFIG), ("manifest.json", manifest.as_bytes())];
    (id.parse().unwrap(), tar_of(&files))
}

fn oci_archive() -> (ImageId, Vec<u8>) {
    let id = config_id(CONFIG);
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"sha256:{id}","size":1}},
            "layers":[{{"digest":"sha256:11","size":3}}]}}"#
    );
    let manifest_digest = config_id(manifest.as_bytes());
    let index = format!(
        r#"{{"manifests":[{{"digest":"sha256:{manifest_digest}",
            "annotations":{{"org.opencontainers.image.ref.name":"localhost/counter:1"}}}}]}}"#
    );
    let files: [(&str, &[u8]); 5] = [
        ("blobs/sha256/11", b"abc"),
        (&format!("blobs/sha256/{id}"), CONFIG),
        (&format!("./blobs/sha256/{manifest_digest}"), manifest.as_bytes()),
        ("index.json", index.as_bytes()),
        ("oci-layout", b"{}"),
    ];
    (id.parse().unwrap(), tar_of(&files))
}

#[test]
fn a_docker_archive_says_what_it_holds() {
    let (id, bytes) = docker_archive(Some("localhost/counter:latest"), &[7; 5000]);
    let archive = inspect(bytes.as_slice()).unwrap();
    let expected = Archive {
        id,
        names: vec!["localhost/counter:latest".into()],
        arch: "amd64".into(),
        os: "linux".into(),
        size_bytes: 5000,
    };
    assert_eq!(archive, expected);
}

#[test]
fn an_oci_archive_says_what_it_holds() {
    let (id, bytes) = oci_archive();
    let archive = inspect(bytes.as_slice()).unwrap();
    assert_eq!((archive.id, archive.size_bytes), (id, 3));
    assert_eq!(archive.names, ["localhost/counter:1"]);
}

#[test]
fn no_truncation_passes_for_an_archive() {
    for (_, bytes) in [docker_archive(Some("x:1"), &[7; 3000]), oci_archive()] {
        let end = bytes.len() - 1024; // two blocks of zeros end a tar
        for length in (0..end).step_by(100).chain((0..end).step_by(512)) {
            assert!(inspect(&bytes[..length]).is_err(), "{length} of {end} bytes were accepted");
        }
    }
}

#[test]
fn garbage_is_refused_for_what_it_is() {
    let noise: Vec<u8> =
        (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    assert!(matches!(inspect(noise.as_slice()), Err(ArchiveError::Unreadable(_))));
    assert!(matches!(inspect(&b""[..]), Err(ArchiveError::Unreadable(_))));
    assert!(matches!(inspect(&[0x1f, 0x8b, 8, 0][..]), Err(ArchiveError::Compressed("gzip"))));
    let stranger = tar_of(&[("etc/passwd", b"root")]);
    assert!(matches!(inspect(stranger.as_slice()), Err(ArchiveError::NoManifest)));
}

#[test]
fn an_archive_of_several_images_or_none_is_refused() {
    let none = tar_of(&[("manifest.json", b"[]")]);
    assert!(matches!(inspect(none.as_slice()), Err(ArchiveError::NotOne(0))));
    let image = r#"{"Config":"a.json","Layers":[]}"#;
    let two = tar_of(&[("manifest.json", format!("[{image},{image}]").as_bytes())]);
    assert!(matches!(inspect(two.as_slice()), Err(ArchiveError::NotOne(2))));
}

#[test]
fn a_configuration_that_is_not_its_name_is_damaged() {
    let id = "ab".repeat(32);
    let manifest = format!(r#"[{{"Config":"{id}.json","Layers":[]}}]"#);
    let bytes = tar_of(&[(&format!("{id}.json"), CONFIG), ("manifest.json", manifest.as_bytes())]);
    assert!(matches!(inspect(bytes.as_slice()), Err(ArchiveError::Damaged(_))));
}

#[test]
fn a_layer_that_is_missing_is_named() {
    let id = config_id(CONFIG);
    let manifest = format!(r#"[{{"Config":"{id}.json","Layers":["gone.tar"]}}]"#);
    let bytes = tar_of(&[(&format!("{id}.json"), CONFIG), ("manifest.json", manifest.as_bytes())]);
    match inspect(bytes.as_slice()) {
        Err(ArchiveError::Lacks(file)) => assert_eq!(file, "gone.tar"),
        other => panic!("{other:?}"),
    }
}
