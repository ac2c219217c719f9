//! The backend of a compute target: one of three objects with names of their own. What the Rust types make of themselves (an object
//! that is flattened into a tagged one of several) is true, and too much for generators of clients.

use utoipa::openapi::{
    Components, ObjectBuilder, RefOr,
    schema::{Discriminator, Object, OneOfBuilder, Ref, Schema, Type},
};

/// Name of the schema, its `kind`, the schema with its settings, and what it is.
const KINDS: [(&str, &str, Option<&str>, &str); 3] = [
    ("ProcessBackend", "process", None, "Processes on the worker's own machine."),
    ("SlurmBackend", "slurm", Some("SlurmSettings"), "Jobs of a Slurm cluster."),
    (
        "KubernetesBackend",
        "kubernetes",
        Some("KubernetesSettings"),
        "Jobs and MPIJobs of a Kubernetes cluster.",
    ),
];

/// Writes the three, and makes `Backend` one of them.
pub(super) fn finish(components: &mut Components) {
    let Some(common) = common(components) else { return };
    let mut one_of = OneOfBuilder::new().description(Some("How this service reaches a target."));
    let mut discriminator = Discriminator::new("kind");
    for (name, kind, settings, description) in KINDS {
        let settings = settings.and_then(|name| components.schemas.get(name));
        let mut object = match settings {
            Some(RefOr::T(Schema::Object(settings))) => settings.clone(),
            _ => ObjectBuilder::new().build(),
        };
        let word = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([kind])).build();
        object.description = Some(description.to_owned());
        object.properties.insert("kind".to_owned(), RefOr::T(word.into()));
        object.required.insert(0, "kind".to_owned());
        object.properties.extend(common.properties.clone());
        components.schemas.insert(name.to_owned(), RefOr::T(object.into()));
        one_of = one_of.item(Ref::from_schema_name(name));
        discriminator.mapping.insert(kind.to_owned(), format!("#/components/schemas/{name}"));
    }
    let backend = one_of.discriminator(Some(discriminator)).build();
    components.schemas.insert("Backend".to_owned(), RefOr::T(backend.into()));
    for no_longer_used in ["Engine", "SlurmSettings", "KubernetesSettings"] {
        components.schemas.remove(no_longer_used);
    }
}

/// What every backend has.
fn common(components: &Components) -> Option<Object> {
    let Some(RefOr::T(Schema::AllOf(backend))) = components.schemas.get("Backend") else { return None };
    backend.items.iter().find_map(|item| match item {
        RefOr::T(Schema::Object(object)) => Some(object.clone()),
        _ => None,
    })
}
