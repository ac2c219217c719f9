//! What holds for parameters of operations.

use utoipa::openapi::{
    RefOr,
    path::{Parameter, ParameterIn, ParameterStyle},
    schema::{AdditionalProperties, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type},
};

/// A UUIDv7 (RFC 9562).
const UUID_V7: &str =
    "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$";

/// Visible ASCII and spaces.
const KEY: &str = "^[ -~]+$";

/// Says of a parameter what its Rust type cannot say.
pub(super) fn finish(operation_id: &str, parameter: &mut Parameter) {
    if operation_id == "put_run" && parameter.name == "id" {
        let id = ObjectBuilder::new().schema_type(Type::String).pattern(Some(UUID_V7));
        parameter.schema =
            Some(RefOr::T(id.format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid))).into()));
    }
    let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema else { return };
    // That it may be left out is said by `required`: a header or a query has no null to send.
    if let SchemaType::Array(types) = &mut schema.schema_type {
        types.retain(|one| *one != Type::Null);
        if let [only] = types.as_slice() {
            schema.schema_type = SchemaType::Type(only.clone());
        }
    }
    match (&parameter.parameter_in, parameter.name.as_str()) {
        (ParameterIn::Header, "Idempotency-Key") => {
            schema.min_length = Some(1);
            schema.pattern = Some(KEY.to_owned());
        }
        (ParameterIn::Query, "tag") => {
            let text = ObjectBuilder::new().schema_type(Type::String).max_length(Some(1024)).build();
            schema.schema_type = SchemaType::Type(Type::Object);
            let name =
                ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255));
            schema.property_names = Some(Box::new(name.build().into()));
            schema.additional_properties = Some(Box::new(AdditionalProperties::RefOr(RefOr::T(text.into()))));
            parameter.style = Some(ParameterStyle::DeepObject);
            parameter.explode = Some(true);
        }
        // None of them has a meaning when it is empty, so it is refused.
        (ParameterIn::Query, _) if is_text(&schema.schema_type) && schema.format.is_none() => {
            schema.min_length = Some(1);
        }
        _ => {}
    }
}

fn is_text(schema_type: &SchemaType) -> bool {
    matches!(schema_type, SchemaType::Type(Type::String))
}
