//! What the service sends by itself.

use utoipa::openapi::{
    Content, HttpMethod, ObjectBuilder, Paths, PathsBuilder, Ref, RefOr, Required, ResponseBuilder,
    path::{OperationBuilder, ParameterBuilder, ParameterIn, PathItem},
    request_body::RequestBodyBuilder,
    schema::Type,
};

use crate::domain::webhook::Message;

/// The headers of every message (Standard Webhooks).
const HEADERS: [(&str, &str); 3] = [
    ("webhook-id", "The message's id: the same however often it is sent"),
    ("webhook-timestamp", "When this try was made, in seconds since 1970"),
    (
        "webhook-signature",
        "`v1,` and the Base64 of the HMAC-SHA256, by the secret, of `<webhook-id>.<webhook-timestamp>.<body>`; two of them, with a \
         space between, while two secrets count",
    ),
];

/// The messages.
pub(super) fn webhooks() -> Paths {
    let text = || ObjectBuilder::new().schema_type(Type::String).build();
    let body = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Message"))));
    let mut told = OperationBuilder::new()
        .operation_id(Some("run_status_changed"))
        .tag("webhooks")
        .summary(Some("The status of a run has changed"))
        .description(Some(
            "Sent to the receiver of a webhook, at least once, in no certain order: `sequence` tells which message is newer.",
        ))
        .request_body(Some(
            RequestBodyBuilder::new()
                .description(Some("What happened"))
                .required(Some(Required::True))
                .content("application/json", body)
                .build(),
        ))
        .response("2XX", ResponseBuilder::new().description("It has arrived").build())
        .response("410", ResponseBuilder::new().description("Tell me nothing any more").build())
        .response("default", ResponseBuilder::new().description("It is sent again later").build());
    for (name, description) in HEADERS {
        let header = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some(description))
            .schema(Some(text()));
        told = told.parameter(header);
    }
    PathsBuilder::new().path(Message::STATUS_CHANGED, PathItem::new(HttpMethod::Post, told.build())).build()
}
