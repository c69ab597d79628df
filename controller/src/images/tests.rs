use futures_util::stream;

use super::archive::tests::docker_archive;
use super::*;

struct Fixture {
    directory: tempfile::TempDir,
    images: Images,
}

fn fresh() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let store = StoreHandle::open(&directory.path().join("godwit.db")).unwrap();
    let images = Images::open(directory.path().join("images"), store).unwrap();
    Fixture { directory, images }
}

impl Fixture {
    async fn upload(
        &self,
        name: Option<&str>,
        bytes: &[u8],
    ) -> Result<(ImageRow, bool), ImageError> {
        let pieces: Vec<io::Result<Bytes>> =
            bytes.chunks(700).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        self.images.receive(&tenant(), name, stream::iter(pieces)).await
    }

    fn files(&self) -> Vec<String> {
        let listed = |folder: &str| {
            fs::read_dir(self.directory.path().join(folder))
                .unwrap()
                .map(|entry| entry.unwrap())
                .filter(|entry| entry.file_type().unwrap().is_file())
                .map(|entry| entry.file_name().into_string().unwrap())
                .collect::<Vec<_>>()
        };
        [listed("images"), listed("images/incoming")].concat()
    }
}

fn tenant() -> Tenant {
    Tenant::default_tenant()
}

#[tokio::test]
async fn an_upload_is_kept_byte_for_byte() {
    let fixture = fresh();
    let (id, bytes) = docker_archive(Some("localhost/counter:latest"), &[7; 9000]);
    let (row, is_new) = fixture.upload(Some("moved"), &bytes).await.unwrap();
    assert!(is_new);
    assert_eq!(row.names, ["localhost/counter:latest", "localhost/moved:latest"]);
    assert_eq!((row.size_bytes, row.archive_bytes), (9000, bytes.len() as u64));
    let path = fixture.images.path_of(&id).unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert_eq!(fixture.images.list(&tenant()).await.unwrap(), [row]);

    let (_, is_new) = fixture.upload(None, &bytes).await.unwrap();
    assert!(!is_new);
    fixture.images.remove(&tenant(), &id).await.unwrap();
    assert_eq!(fixture.images.path_of(&id), None);
    assert_eq!(fixture.files(), [""; 0]);
}

#[tokio::test]
async fn a_refused_upload_leaves_nothing() {
    let fixture = fresh();
    let (_, bytes) = docker_archive(None, &[7; 9000]);
    let nameless = fixture.upload(None, &bytes).await;
    assert!(matches!(nameless, Err(ImageError::Nameless(_))), "{nameless:?}");
    let misnamed = fixture.upload(Some("a b"), &bytes).await;
    assert!(matches!(misnamed, Err(ImageError::Name(_))), "{misnamed:?}");
    let truncated = fixture.upload(Some("x"), &bytes[..6000]).await;
    assert!(matches!(truncated, Err(ImageError::Archive(_))), "{truncated:?}");
    assert_eq!(fixture.images.list(&tenant()).await.unwrap(), []);
    assert_eq!(fixture.files(), [""; 0]);
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_not_an_image() {
    let fixture = fresh();
    let (_, bytes) = docker_archive(Some("x"), &[7; 9000]);
    let pieces = [Ok(Bytes::from(bytes)), Err(io::Error::from(io::ErrorKind::ConnectionReset))];
    let broken = fixture.images.receive(&tenant(), None, stream::iter(pieces)).await;
    assert!(matches!(broken, Err(ImageError::CutOff(_))), "{broken:?}");
    assert_eq!(fixture.files(), [""; 0]);
}

#[tokio::test]
async fn what_a_crash_cut_off_is_dropped_at_the_start() {
    let fixture = fresh();
    fs::write(fixture.images.incoming().join("half"), "of it").unwrap();
    Images::open(fixture.images.directory.clone(), fixture.images.store.clone()).unwrap();
    assert_eq!(fixture.files(), [""; 0]);
}
