//! The few fields of CRIU's RPC (`images/rpc.proto`) that the proxy reads or adds.
//!
//! Messages are carried as the bytes that they came in: fields that are not described
//! here pass untouched. A request is changed only by appending a second `opts`, which
//! protobuf merges into the first, the last value winning.

use prost::Message as _;

/// `criu_req_type.DUMP`.
pub(crate) const DUMP: i32 = 1;
/// `criu_req_type.RESTORE`.
pub(crate) const RESTORE: i32 = 2;
/// `criu_req_type.NOTIFY`.
pub(crate) const NOTIFY: i32 = 6;
/// `criu_network_lock_method.SKIP`: the agent cuts the network itself.
const NETWORK_LOCK_SKIP: i32 = 3;

/// CRIU leaves out deleted files that are open still and larger than 1 MiB unless it is told otherwise.
const LARGEST_DELETED_BYTES: u32 = u32::MAX;

/// `criu_req`: what runc asks, and its answers to notifications.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    /// What is asked: [`DUMP`], [`RESTORE`], [`NOTIFY`] or another.
    #[prost(int32, required, tag = "1")]
    pub(crate) kind: i32,
    /// How.
    #[prost(message, optional, tag = "2")]
    pub(crate) opts: Option<Options>,
    /// The answer to a notification: false makes criu give up.
    #[prost(bool, optional, tag = "3")]
    pub(crate) notify_success: Option<bool>,
}

/// `criu_opts`, as far as it matters here.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Options {
    /// The image directory, as a descriptor of the process that made criu's socket.
    #[prost(int32, optional, tag = "1")]
    pub(crate) images_dir_fd: Option<i32>,
    /// The directory of logs and the like, as such a descriptor.
    #[prost(int32, optional, tag = "17")]
    pub(crate) work_dir_fd: Option<i32>,
    /// The largest file without a name that is taken along.
    #[prost(uint32, optional, tag = "35")]
    pub(crate) ghost_limit: Option<u32>,
    /// Where files may be that processes watch: criu knows them by inodes, and cannot ask overlayfs.
    #[prost(string, repeated, tag = "36")]
    pub(crate) irmap_scan_paths: Vec<String>,
    /// How criu keeps the network still.
    #[prost(int32, optional, tag = "64")]
    pub(crate) network_lock: Option<i32>,
}

/// `criu_resp`: notifications, and the last word.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    /// What it answers, or [`NOTIFY`].
    #[prost(int32, required, tag = "1")]
    pub(crate) kind: i32,
    /// Whether that succeeded.
    #[prost(bool, required, tag = "2")]
    pub(crate) success: bool,
    /// The notification.
    #[prost(message, optional, tag = "5")]
    pub(crate) notify: Option<Notify>,
}

/// `criu_notify`: criu waits at a named point.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Notify {
    /// The point's name.
    #[prost(string, optional, tag = "1")]
    pub(crate) script: Option<String>,
    /// The container's first process, where it exists.
    #[prost(int32, optional, tag = "2")]
    pub(crate) pid: Option<i32>,
}

/// Only the `opts` of a request, to be appended to one.
#[derive(Clone, PartialEq, prost::Message)]
struct Patch {
    #[prost(message, optional, tag = "2")]
    opts: Option<Options>,
}

/// The request with the proxy's own directory descriptors, with all files that have no name and
/// those that are `watched`, and without criu's network lock.
pub(crate) fn completed(
    request: &[u8],
    images: i32,
    work: Option<i32>,
    watched: Vec<String>,
) -> Vec<u8> {
    let opts = Options {
        images_dir_fd: Some(images),
        work_dir_fd: work,
        ghost_limit: Some(LARGEST_DELETED_BYTES),
        irmap_scan_paths: watched,
        network_lock: Some(NETWORK_LOCK_SKIP),
    };
    let mut patched = request.to_vec();
    patched.extend(Patch { opts: Some(opts) }.encode_to_vec());
    patched
}

/// The answer to a notification, in runc's stead.
pub(crate) fn answer(success: bool) -> Vec<u8> {
    Request { kind: NOTIFY, opts: None, notify_success: Some(success) }.encode_to_vec()
}

/// What criu answers to a dump that succeeded.
pub(crate) fn dumped() -> Vec<u8> {
    Response { kind: DUMP, success: true, notify: None }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patched_request_keeps_what_is_not_described_here() {
        // type = RESTORE, opts { images_dir_fd = 7, log_file (10) = "r", work_dir_fd = 8 }
        let request = [8, 2, 0x12, 8, 8, 7, 0x52, 1, b'r', 0x88, 1, 8];
        let patched = completed(&request, 200, Some(201), vec!["/a".into()]);
        assert_eq!(patched[..request.len()], request, "what runc sent is not rewritten");
        let merged = Request::decode(&patched[..]).expect("decode");
        let opts = merged.opts.expect("opts");
        assert_eq!((opts.images_dir_fd, opts.work_dir_fd), (Some(200), Some(201)));
        assert_eq!(opts.network_lock, Some(3));
        assert_eq!((opts.ghost_limit, opts.irmap_scan_paths), (Some(u32::MAX), vec!["/a".into()]));
    }

    #[test]
    fn a_work_directory_that_runc_did_not_name_is_not_invented() {
        let patched = completed(&[8, 1], 200, None, Vec::new());
        let opts = Request::decode(&patched[..]).expect("decode").opts.expect("opts");
        assert_eq!(opts.work_dir_fd, None);
    }

    #[test]
    fn an_answer_is_what_runc_would_send() {
        assert_eq!(answer(true), [8, 6, 0x18, 1]);
        assert_eq!(answer(false), [8, 6, 0x18, 0]);
        assert_eq!(dumped(), [8, 1, 0x10, 1]);
    }
}
