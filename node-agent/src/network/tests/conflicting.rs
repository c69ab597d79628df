//! Who has an address of another's.

use godwit_proto::container::Interface;
use ipnet::IpNet;

use super::super::NetworkError;
use super::node::{Guest, on_a_node};

#[test]
fn an_address_of_either_family_that_somebody_has_is_refused_with_his_name() {
    on_a_node(|network| async move {
        let interface = |last: u8, addresses: &[&str]| Interface {
            mac: [2, 0, 0, 0, 0, last],
            addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
            gateways: Vec::new(),
            overlay: None,
        };
        let both = ["10.77.0.9/24", "fd77::9/64"];
        let holder = interface(9, &both);
        let ip = "10.77.0.9".parse().expect("an address");
        let guest = Guest::with(&network, ip, vec![holder.clone()]).await;
        network.must_be_free(&[interface(2, &both)]).await.expect("nobody is attached");
        network.attach(guest.id, &guest.interfaces).await.expect("attach");
        for net in both {
            match network.must_be_free(&[interface(2, &[net])]).await {
                Err(NetworkError::Taken { ip, mac }) => {
                    let asked: IpNet = net.parse().expect("an address");
                    assert_eq!((ip, mac), (asked.addr(), holder.mac));
                }
                other => panic!("{net}: {other:?}"),
            }
        }
        network.must_be_free(&[interface(2, &["10.77.0.8/24"])]).await.expect("nobody's");
        network.must_be_free(&[holder]).await.expect("its own, wherever it is");
    });
}
