//! The names of images.

/// What Docker takes for a name without a registry.
const DEFAULT_REGISTRY: &str = "docker.io";

/// The name that an image is pulled by: `image_registry_details` names the registry of an image that names none itself.
#[must_use]
pub fn pull_name(image: &str, registry_address: Option<&str>) -> String {
    let Some(address) = registry_address.map(host) else { return image.to_owned() };
    if address.is_empty() || host_of(image).is_some() {
        return image.to_owned();
    }
    format!("{address}/{image}")
}

/// The registry that an image is pulled from, as credentials are kept by.
#[must_use]
pub fn registry_of(image: &str) -> &str {
    host_of(image).unwrap_or(DEFAULT_REGISTRY)
}

/// The first component is a host when it could not be a folder: it has a dot or a port, or is `localhost`.
fn host_of(image: &str) -> Option<&str> {
    let (first, _) = image.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

/// An address as people write it, reduced to host and path.
fn host(address: &str) -> &str {
    let address = address.trim();
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    address.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_named_by_the_image_or_beside_it() {
        for (image, address, name) in [
            ("mine:1", None, "mine:1"),
            ("mine:1", Some("r.example.com"), "r.example.com/mine:1"),
            ("me/mine", Some("https://r.example.com:5000/"), "r.example.com:5000/me/mine"),
            ("r.example.com/mine", Some("r.example.com"), "r.example.com/mine"),
            ("localhost/mine", Some("r.example.com"), "localhost/mine"),
            ("localhost:5000/mine", Some("r.example.com"), "localhost:5000/mine"),
            ("mine", Some(" "), "mine"),
        ] {
            assert_eq!(pull_name(image, address), name);
        }
    }

    #[test]
    fn images_without_a_host_are_docker_s() {
        assert_eq!(registry_of("python:3.11"), "docker.io");
        assert_eq!(registry_of("me/mine@sha256:00"), "docker.io");
        assert_eq!(registry_of("localhost:5000/a/b:1"), "localhost:5000");
    }
}
