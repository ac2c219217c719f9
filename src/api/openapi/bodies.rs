//! What holds for the bodies of requests.

use utoipa::openapi::{
    Components, RefOr,
    schema::{AdditionalProperties, OneOfBuilder, Ref, Schema, SchemaType, Type},
};

/// A member that is not known is refused, and null counts as not given: both are said by none of the Rust types, because what is
/// sent is read member by member and not through them.
pub(super) fn finish(components: &mut Components) {
    for (name, schema) in &mut components.schemas {
        if !(name.ends_with("Body") || name == "EstimatorDefinition") {
            continue;
        }
        let RefOr::T(Schema::Object(body)) = schema else { continue };
        body.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        let required = body.required.clone();
        for (name, member) in &mut body.properties {
            if !required.contains(name) {
                make_nullable(member);
            }
        }
    }
}

fn make_nullable(member: &mut RefOr<Schema>) {
    let null = || utoipa::openapi::ObjectBuilder::new().schema_type(Type::Null).build();
    let schema_type = match member {
        RefOr::Ref(reference) => {
            let description = (!reference.description.is_empty()).then(|| reference.description.clone());
            let plain = Ref::new(reference.ref_location.clone());
            let either = OneOfBuilder::new().item(null()).item(plain).description(description).build();
            *member = RefOr::T(Schema::OneOf(either));
            return;
        }
        RefOr::T(Schema::Object(object)) => &mut object.schema_type,
        RefOr::T(Schema::Array(array)) => &mut array.schema_type,
        RefOr::T(_) => return,
    };
    match schema_type {
        SchemaType::Type(only) if *only != Type::Null => {
            *schema_type = SchemaType::Array(vec![only.clone(), Type::Null]);
        }
        SchemaType::Array(types) if !types.contains(&Type::Null) => types.push(Type::Null),
        _ => {}
    }
}
