//! Rules about Docker, images, registries and shared memory.

use super::{
    CHAINER_PAGE, Context, Rule, Sink,
    grammar::{image, shm},
    patched, words,
};
use crate::domain::{
    compute_target::{ComputeTargetType, Containers},
    definition::{Given, Registry, shortened},
    finding::Severity,
    json as pointers, patch,
};

/// The rules of this file.
pub(super) static RULES: &[Rule] = &[
    Rule {
        slug: "use-gpu-image-ignored",
        severity: Severity::Info,
        parameters: &["use_gpu", "custom_docker_image"],
        summary: "With a custom image the switch for GPUs picks no image.",
        doc: "The image with CUDA is used by default, unless a custom image is named.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": null, "vm_size": "STANDARD_NC6", "use_gpu": true, "custom_docker_image": "registry.example/team/chainer:7"}"#,
        accepted: Some(r#"{"compute_target": null, "vm_size": "STANDARD_NC6", "use_gpu": true}"#),
        check: use_gpu_image_ignored,
    },
    Rule {
        slug: "image-without-docker",
        severity: Severity::Error,
        parameters: &["use_docker", "custom_docker_image", "custom_docker_base_image"],
        summary: "An image needs Docker.",
        doc: "The image is the one that the Docker container is made from.",
        url: CHAINER_PAGE,
        refused: r#"{"use_docker": false, "custom_docker_image": "registry.example/team/chainer:7"}"#,
        accepted: Some(r#"{"custom_docker_image": "registry.example/team/chainer:7"}"#),
        check: image_without_docker,
    },
    Rule {
        slug: "image-reference-invalid",
        severity: Severity::Error,
        parameters: &["custom_docker_image", "custom_docker_base_image", "environment_definition"],
        summary: "The name of an image follows the OCI grammar.",
        doc: "The parameter holds the name of a Docker image; image names have a grammar.",
        url: "https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests",
        refused: r#"{"custom_docker_image": "Team Image:7"}"#,
        accepted: Some(r#"{"custom_docker_image": "registry.example/team/chainer:7"}"#),
        check: image_reference_invalid,
    },
    Rule {
        slug: "registry-incomplete",
        severity: Severity::Error,
        parameters: &["image_registry_details", "environment_definition"],
        summary: "A registry has an address; user name and password come together or not at all.",
        doc: "The details of a registry are its address and, where it asks for them, user name and password.",
        url: CHAINER_PAGE,
        refused: r#"{"custom_docker_image": "registry.example/team/chainer:7", "image_registry_details": {"username": "puller", "password": "[redacted]"}}"#,
        accepted: Some(
            r#"{"custom_docker_image": "registry.example/team/chainer:7", "image_registry_details": {"address": "registry.example", "username": "puller", "password": "[redacted]"}}"#,
        ),
        check: registry_incomplete,
    },
    Rule {
        slug: "registry-address-with-credentials",
        severity: Severity::Error,
        parameters: &["image_registry_details", "environment_definition"],
        summary: "The address of a registry holds neither user name nor password.",
        doc: "The details of a registry are its address and, where it asks for them, user name and password.",
        url: CHAINER_PAGE,
        refused: r#"{"custom_docker_image": "registry.example/team/chainer:7", "image_registry_details": {"address": "[redacted]@registry.example"}}"#,
        accepted: Some(
            r#"{"custom_docker_image": "registry.example/team/chainer:7", "image_registry_details": {"address": "registry.example"}}"#,
        ),
        check: registry_address_with_credentials,
    },
    Rule {
        slug: "registry-without-image",
        severity: Severity::Warning,
        parameters: &["image_registry_details", "custom_docker_image"],
        summary: "A registry has no effect without an image.",
        doc: "The details are those of the registry that the custom image is pulled from.",
        url: CHAINER_PAGE,
        refused: r#"{"image_registry_details": {"address": "registry.example"}}"#,
        accepted: Some(
            r#"{"custom_docker_image": "registry.example/team/chainer:7", "image_registry_details": {"address": "registry.example"}}"#,
        ),
        check: registry_without_image,
    },
    Rule {
        slug: "container-not-available",
        severity: Severity::Error,
        parameters: &[
            "custom_docker_image",
            "custom_docker_base_image",
            "environment_definition",
            "compute_target",
        ],
        summary: "A definition that names an image needs a target that has containers.",
        doc: "The run takes place in a container of the named image.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": "bare-metal", "custom_docker_image": "registry.example/team/chainer:7"}"#,
        accepted: Some(r#"{"compute_target": "bare-metal"}"#),
        check: container_not_available,
    },
    Rule {
        slug: "shm-size-invalid",
        severity: Severity::Error,
        parameters: &["shm_size", "environment_definition"],
        summary: "The size of shared memory is digits and an optional unit, and more than zero.",
        doc: "The size is written the way Docker takes it, and has a default.",
        url: "https://docs.docker.com/reference/cli/docker/container/run/",
        refused: r#"{"shm_size": "2 GB"}"#,
        accepted: Some(r#"{"shm_size": "2g"}"#),
        check: shm_size_invalid,
    },
    Rule {
        slug: "shm-size-without-docker",
        severity: Severity::Warning,
        parameters: &["use_docker", "shm_size"],
        summary: "The size of shared memory has no effect without Docker.",
        doc: "The size is that of the Docker container's shared memory.",
        url: CHAINER_PAGE,
        refused: r#"{"use_docker": false, "shm_size": "8g"}"#,
        accepted: Some(r#"{"shm_size": "8g"}"#),
        check: shm_size_without_docker,
    },
];

fn use_gpu_image_ignored(context: &Context<'_>, sink: &mut Sink<'_>) {
    if context.draft.use_gpu.is_true() && context.draft.image().is_given() {
        sink.report_about(
            &["custom_docker_image"],
            "/use_gpu",
            "`use_gpu` picks no image here: the custom image stays. The run still asks its target for GPUs.",
            words("Nothing has to change if the custom image has what the GPUs need."),
        );
    }
}

fn image_without_docker(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    if context.has_environment() || !draft.use_docker.is_false() {
        return;
    }
    let mut images = Vec::new();
    for (name, given) in [
        ("custom_docker_image", draft.custom_docker_image.is_given()),
        ("custom_docker_base_image", draft.custom_docker_base_image.is_given()),
    ] {
        if given {
            images.push(name);
        }
    }
    let Some(first) = images.first() else {
        return;
    };
    sink.report_about(
        &images,
        "/use_docker",
        format!("`use_docker` is false, but `{first}` names an image; an image needs Docker."),
        words("Write `true`, or name no image."),
    );
}

fn image_reference_invalid(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    let mut places: Vec<(String, &Given<String>)> = Vec::new();
    if !context.has_environment() {
        places.push(("/custom_docker_base_image".to_owned(), &draft.custom_docker_base_image));
    }
    places.push(("/custom_docker_image".to_owned(), &draft.custom_docker_image));
    if let Some(environment) = draft.environment_definition.value() {
        places.push((environment.docker.base_image_pointer.clone(), &environment.docker.base_image));
    }
    for (pointer, given) in places {
        if let Some(text) = given.text()
            && let Some(why) = image::fault(text)
        {
            let shown = shortened(&image::without_credentials(text));
            sink.report(
                pointer,
                format!("{shown:?} is no image reference: {why}."),
                words("Write `registry/name:tag` or `name@sha256:…`, such as `myregistry.example/team/chainer:1`."),
            );
        }
    }
}

/// `conflicting-parameters`: both image parameters.
pub(super) fn both_images(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    if !context.has_environment()
        && draft.custom_docker_image.is_given()
        && draft.custom_docker_base_image.is_given()
    {
        sink.report_about(
            &["custom_docker_image"],
            "/custom_docker_base_image",
            "`custom_docker_base_image` and `custom_docker_image` are both given; only one of them can be the image.",
            patched(
                "Keep `custom_docker_image` and remove the deprecated one.",
                patch::discard("custom_docker_base_image"),
            ),
        );
    }
}

/// `conflicting-parameters`: what the optimized mode does not go with.
pub(super) fn optimized_mode(context: &Context<'_>, sink: &mut Sink<'_>) {
    if !context.draft.enable_optimized_mode.is_true() {
        return;
    }
    let mut reasons = Vec::new();
    let mut others = Vec::new();
    if let Some(target) = &context.target
        && target.kind != ComputeTargetType::AmlCompute
    {
        reasons.push(format!("the target `{}` is of type {} and not AmlCompute", target.label, target.kind));
        others.push("compute_target");
    }
    if context.has_environment() {
        reasons.push("`environment_definition` is given".to_owned());
        others.push("environment_definition");
    }
    if context.draft.image().is_given() {
        reasons.push("a custom image is given".to_owned());
        others.push("custom_docker_image");
    }
    if reasons.is_empty() {
        return;
    }
    sink.report_about(
        &others,
        "/_enable_optimized_mode",
        format!("`_enable_optimized_mode` is not possible here: {}.", reasons.join("; ")),
        patched("Leave it out.", [patch::remove("_enable_optimized_mode")]),
    );
}

fn registry_incomplete(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let Some(registry) = context.draft.image_registry_details.value() {
        incomplete(registry, sink);
    }
    if let Some(environment) = context.draft.environment_definition.value()
        && let Some(registry) = environment.docker.registry.value()
    {
        incomplete(registry, sink);
    }
}

fn incomplete(registry: &Registry, sink: &mut Sink<'_>) {
    if !registry.address.is_given() {
        sink.report(
            pointers::child(&registry.pointer, "address"),
            "The registry has no `address`.",
            words("Write the host name of the registry, such as `myregistry.example`."),
        );
    }
    let missing = match (registry.username.is_given(), registry.password.is_given()) {
        (true, false) => "password",
        (false, true) => "username",
        _ => return,
    };
    sink.report(
        pointers::child(&registry.pointer, missing),
        format!("The registry has no `{missing}`; `username` and `password` come together or not at all."),
        words(format!("Add `{missing}`, or remove the other one for a registry that asks for neither.")),
    );
}

fn registry_address_with_credentials(context: &Context<'_>, sink: &mut Sink<'_>) {
    let own = context.draft.image_registry_details.value();
    let environment = context.draft.environment_definition.value();
    for registry in own.into_iter().chain(environment.and_then(|it| it.docker.registry.value())) {
        // The message must not repeat what may be a password.
        if registry.address.text().is_some_and(|address| address.contains('@')) {
            sink.report(
                pointers::child(&registry.pointer, "address"),
                "The address of the registry has an `@`: an address is shown, and must hold neither user name nor password.",
                words("Write the host name alone; `username` and `password` are kept apart and never shown."),
            );
        }
    }
}

fn registry_without_image(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    if draft.image_registry_details.is_given() && !context.has_environment() && !draft.image().is_given() {
        sink.report_about(
            &["custom_docker_image"],
            "/image_registry_details",
            "`image_registry_details` has no effect: no image is named that would be pulled from the registry.",
            words("Name the image in `custom_docker_image`, or remove the registry."),
        );
    }
    if let Some(environment) = draft.environment_definition.value()
        && environment.docker.registry.is_given()
        && !environment.docker.base_image.is_given()
        && !environment.docker.base_dockerfile.is_given()
    {
        sink.report(
            environment.docker.registry_pointer.clone(),
            "The registry has no effect: the environment names no image that would be pulled from it.",
            words("Name the image in `base_image`, or remove the registry."),
        );
    }
}

fn container_not_available(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    let Some(target) = context.target.as_ref().filter(|target| target.containers == Containers::Never) else {
        return;
    };
    let mut places = vec![("/custom_docker_image".to_owned(), draft.custom_docker_image.is_given())];
    if !context.has_environment() {
        places.push(("/custom_docker_base_image".to_owned(), draft.custom_docker_base_image.is_given()));
    }
    if let Some(environment) = draft.environment_definition.value() {
        // A saved environment names an image even where Docker is switched off.
        let docker = &environment.docker;
        let used = !docker.enabled.is_false();
        places.push((docker.base_image_pointer.clone(), used && docker.base_image.is_given()));
        places.push((docker.base_dockerfile_pointer.clone(), used && docker.base_dockerfile.is_given()));
    }
    for (pointer, named) in places {
        if named {
            sink.report_about(
                &["compute_target"],
                pointer,
                format!("An image is named, but the target `{}` says that it has no containers.", target.label),
                words("Name a target with Docker or Podman, or name no image: then the run gets a virtual environment."),
            );
        }
    }
}

fn shm_size_invalid(context: &Context<'_>, sink: &mut Sink<'_>) {
    let mut places = vec![("/shm_size".to_owned(), &context.draft.shm_size)];
    if let Some(environment) = context.draft.environment_definition.value() {
        places.push((environment.docker.shm_size_pointer.clone(), &environment.docker.shm_size));
    }
    for (pointer, given) in places {
        if let Some(text) = given.text()
            && !shm::is_size(text)
        {
            sink.report(
                pointer,
                format!(
                    "The size of shared memory is {:?}; it is digits and at most one of `b`, `k`, `m`, `g`, and \
                     more than zero.",
                    shortened(text)
                ),
                words("Write a size such as `2g` or `512m`; the default is `2g`."),
            );
        }
    }
}

fn shm_size_without_docker(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    if !context.has_environment() && draft.use_docker.is_false() && draft.shm_size.is_given() {
        sink.report_about(
            &["use_docker"],
            "/shm_size",
            "`shm_size` has no effect: `use_docker` is false, and without a container the machine's shared memory is used.",
            words("Remove `shm_size`, or let the run use Docker."),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::domain::rules::testing::{errors, verdict, warnings};

    #[test]
    fn images_need_docker_and_a_sound_name() {
        assert_eq!(
            errors(&json!({"use_docker": false, "custom_docker_image": "A B"})),
            ["image-without-docker@/use_docker", "image-reference-invalid@/custom_docker_image"]
        );
        assert_eq!(
            errors(&json!({"custom_docker_image": "a", "custom_docker_base_image": "b"})),
            ["conflicting-parameters@/custom_docker_base_image"]
        );
        let env = json!({"environment_definition": {"docker": {"baseImage": "A B", "shmSize": "2gb"}}});
        assert_eq!(
            errors(&env),
            [
                "image-reference-invalid@/environment_definition/docker/baseImage",
                "shm-size-invalid@/environment_definition/docker/shmSize",
            ]
        );
        // Beside an environment the old image parameter takes part in nothing.
        assert!(
            errors(&json!({"environment_definition": {"name": "e"}, "use_docker": false,
            "custom_docker_base_image": "A B"}))
            .is_empty()
        );
    }

    #[test]
    fn registries_are_complete_and_never_repeated() {
        let with = |registry: serde_json::Value| json!({"custom_docker_image": "a", "image_registry_details": registry});
        assert_eq!(
            errors(&with(json!({"address": null, "username": "u", "password": ""}))),
            [
                "registry-incomplete@/image_registry_details/address",
                "registry-incomplete@/image_registry_details/password"
            ]
        );
        assert!(errors(&with(json!({"address": "a"}))).is_empty());
        assert_eq!(
            warnings(&json!({"image_registry_details": {"address": "a"}})),
            ["registry-without-image@/image_registry_details"]
        );
        let saved = json!({"environment_definition": {"name": "e", "docker": {"baseImageRegistry":
            {"address": null, "username": null, "password": null, "registryIdentity": null}}}});
        assert!(warnings(&saved).is_empty() && errors(&saved).is_empty());
        let secret = "n0t-for-readers";
        for wrong in [json!({"address": 1, "password": secret}), json!({"password": [secret]}), json!(secret)]
        {
            let text = serde_json::to_string(&verdict(&with(wrong)).findings).unwrap();
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[test]
    fn credentials_in_names_and_addresses_are_refused_and_not_repeated() {
        let secret = "n0t-for-readers";
        let address = |user: &str| json!({"address": format!("{user}registry.example"), "username": "u", "password": "p"});
        let own = |user: &str| json!({"custom_docker_image": "a", "image_registry_details": address(user)});
        let saved = |user: &str| {
            json!({"environment_definition": {"name": "e", "docker":
            {"base_image": "a", "base_image_registry": address(user)}}})
        };
        for user in [format!("u:{secret}@"), format!("https://u:{secret}@"), format!("{secret}@")] {
            for (body, place) in [
                (own(&user), "/image_registry_details/address"),
                (saved(&user), "/environment_definition/docker/base_image_registry/address"),
            ] {
                assert_eq!(errors(&body), [format!("registry-address-with-credentials@{place}")]);
                let text = serde_json::to_string(&verdict(&body).findings).unwrap();
                assert!(!text.contains(secret), "{text}");
            }
            let body = json!({"custom_docker_image": format!("{user}registry.example/a:1")});
            assert_eq!(errors(&body), ["image-reference-invalid@/custom_docker_image"]);
            let text = serde_json::to_string(&verdict(&body).findings).unwrap();
            assert!(!text.contains(secret) && text.contains("registry.example/a:1"), "{text}");
        }
        assert!(errors(&own("")).is_empty() && errors(&saved("")).is_empty());
    }

    #[test]
    fn shared_memory_needs_docker() {
        let with = |docker: bool| json!({"use_docker": docker, "shm_size": "8g"});
        assert_eq!(warnings(&with(false)), ["shm-size-without-docker@/shm_size"]);
        assert!(warnings(&with(true)).is_empty());
    }

    #[test]
    fn kubernetes_runs_containers() {
        assert_eq!(
            errors(&json!({"compute_target": "kube", "use_docker": false})),
            ["conflicting-parameters@/use_docker"]
        );
        let env = |docker: serde_json::Value| {
            json!({"compute_target": "kube", "use_docker": false,
            "environment_definition": {"name": "e", "docker": docker}})
        };
        assert_eq!(
            errors(&env(json!({"enabled": false}))),
            ["conflicting-parameters@/environment_definition/docker/enabled"]
        );
        assert!(errors(&env(json!(null))).is_empty());
    }

    #[test]
    fn optimized_mode_is_one_finding() {
        let found = errors(
            &json!({"compute_target": "local", "_enable_optimized_mode": true, "custom_docker_image": "a"}),
        );
        assert_eq!(found, ["conflicting-parameters@/_enable_optimized_mode"]);
        assert!(errors(&json!({"_enable_optimized_mode": true})).is_empty());
    }

    #[test]
    fn the_registry_of_an_environment_is_judged_like_any() {
        let env =
            |docker: serde_json::Value| json!({"environment_definition": {"name": "e", "docker": docker}});
        let place = "/environment_definition/docker/base_image_registry";
        assert_eq!(
            errors(&env(
                json!({"base_image": "c:1", "base_image_registry": {"address": "", "username": null}})
            )),
            [format!("registry-incomplete@{place}/address")]
        );
        let faulty = env(json!({"base_image_registry": 5}));
        assert_eq!(errors(&faulty), [format!("wrong-type@{place}")]);
        assert_eq!(warnings(&faulty), [format!("registry-without-image@{place}")]);
        let both = env(json!({"shm_size": "2g", "shmSize": "zz"}));
        assert_eq!(errors(&both), ["unknown-parameter@/environment_definition/docker/shmSize"]);
    }
}
