//! Who a certificate speaks of.

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// The common name in a certificate in DER, or its first DNS name without one; `None` where it names
/// nobody.
///
/// It is not asked here whether the certificate is to be believed: TLS did.
pub fn identity_of(der: &[u8]) -> Option<String> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let common_name =
        certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let dns_name = alternatives.iter().flat_map(|names| &names.value.general_names).find_map(
        |name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        },
    );
    let named = |name: &&str| !name.is_empty();
    common_name.filter(named).or(dns_name.filter(named)).map(str::to_owned)
}
