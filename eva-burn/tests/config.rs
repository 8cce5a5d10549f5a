//! The configuration files of model directories: every form that is out there is read, and every
//! value that would be computed otherwise is refused by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use eva_burn::ModelConfig;
use eva_burn::chat::{Chat, ChatError};
use eva_burn::config::{
    ConfigError, GenerationConfig, ImageConfig, stored_precision, unknown_keys,
};
use eva_burn::sample::Sampling;
use eva_burn::weights::Precision;
use serde_json::{Value, json};

fn published(size: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/published");
    fixtures.join(size)
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The published 7B configuration, flat.
fn flat() -> Value {
    json_of(&published("7b").join("config.json"))
}

/// The same as transformers 5 writes it.
fn nested() -> Value {
    let mut flat = flat();
    let mut text = json!({"model_type": "qwen2_5_vl_text", "pad_token_id": null,
        "rope_parameters": {"mrope_section": [16, 24, 24], "rope_theta": 1e6, "rope_type": "default"},
        "layer_types": vec!["full_attention"; 28]});
    for key in [
        "attention_dropout",
        "bos_token_id",
        "eos_token_id",
        "hidden_act",
        "hidden_size",
        "initializer_range",
        "intermediate_size",
        "max_position_embeddings",
        "max_window_layers",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "sliding_window",
        "tie_word_embeddings",
        "use_cache",
        "use_sliding_window",
        "vocab_size",
    ] {
        text[key] = flat.as_object_mut().unwrap().remove(key).unwrap();
    }
    let root = flat.as_object_mut().unwrap();
    root.remove("rope_theta");
    root.remove("rope_scaling");
    root.insert("text_config".to_owned(), text);
    root.insert("dtype".to_owned(), "bfloat16".into());
    let vision = root["vision_config"].as_object_mut().unwrap();
    vision.remove("in_chans");
    vision.remove("spatial_patch_size");
    vision.insert("in_channels".to_owned(), 3.into());
    vision.insert("model_type".to_owned(), "qwen2_5_vl_vision".into());
    let rope = json!({"rope_theta": 10000.0, "rope_type": "axial"});
    vision.insert("rope_parameters".to_owned(), rope);
    flat
}

/// A directory with these files.
fn directory(files: &[(&str, &Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, value) in files {
        std::fs::write(dir.path().join(name), value.to_string()).unwrap();
    }
    dir
}

fn load(config: &Value) -> Result<ModelConfig, ConfigError> {
    ModelConfig::load(directory(&[("config.json", config)]).path())
}

/// Sets what a pointer names, and makes the objects on the way.
fn set(config: &mut Value, pointer: &str, value: Value) {
    let mut at = config;
    for key in pointer.split('.') {
        at = &mut at[key];
    }
    *at = value;
}

fn changed(mut config: Value, pointer: &str, value: Value) -> Value {
    set(&mut config, pointer, value);
    config
}

#[track_caller]
fn names_key(result: Result<impl std::fmt::Debug, ConfigError>, key: &str) {
    let error = result.expect_err(key).to_string();
    assert!(error.contains(&format!("`{key}`")), "{key}: {error}");
    assert!(error.contains(".json"), "{key}: {error}");
}

#[test]
fn flat_nested_and_mixed_forms_are_the_same() {
    let published = load(&flat()).unwrap();
    assert_eq!(published.text.num_key_value_heads, 4);
    assert_eq!(published.text.mrope_section, [16, 24, 24]);
    assert_eq!(published.vision.fullatt_block_indexes, [7, 15, 23, 31]);
    assert_eq!(published.image_token_id, 151_655);
    assert!(!published.tie_word_embeddings);
    assert_eq!(load(&nested()).unwrap(), published);

    // Versions 4.52 and later: the flat keys, and once more inside, with the channels named twice.
    let mut mixed = flat();
    let mut text = nested()["text_config"].take();
    text["rope_scaling"] =
        json!({"type": "default", "rope_type": "default", "mrope_section": [16, 24, 24]});
    text["rope_theta"] = 1e6.into();
    text.as_object_mut().unwrap().remove("rope_parameters");
    text["image_token_id"] = Value::Null;
    text["vision_token_id"] = 151_654.into();
    mixed["text_config"] = text;
    mixed["vision_config"]["in_channels"] = 3.into();
    assert_eq!(load(&mixed).unwrap(), published);
    // What is inside counts.
    mixed["vocab_size"] = 151_936.into();
    assert_eq!(load(&mixed).unwrap(), published);
}

#[test]
fn tied_heads_are_found_wherever_they_are_told() {
    let tied = |config: &Value| load(config).unwrap().tie_word_embeddings;
    assert!(tied(&json_of(&published("3b").join("config.json"))));
    let mut config = nested();
    set(&mut config, "text_config.tie_word_embeddings", true.into());
    assert!(tied(&config));
    set(&mut config, "tie_word_embeddings", false.into());
    assert!(!tied(&config));
    set(&mut config, "tie_word_embeddings", true.into());
    assert!(tied(&config));
    let mut none = flat();
    none.as_object_mut().unwrap().remove("tie_word_embeddings");
    assert!(!tied(&none));
}

#[test]
fn values_that_would_compute_otherwise_are_refused_by_name() {
    let yarn = json!({"type": "yarn", "factor": 4.0, "mrope_section": [16, 24, 24]});
    let stretched = json!({"type": "mrope", "factor": 4.0, "mrope_section": [16, 24, 24]});
    let strange = json!({"type": "mrope", "beta_fast": 1, "mrope_section": [16, 24, 24]});
    let awq = json!({"quant_method": "awq", "bits": 4});
    for (key, value) in [
        ("model_type", "qwen2_vl".into()),
        ("model_type", Value::Null),
        ("hidden_act", "gelu".into()),
        ("attention_dropout", 0.1.into()),
        ("use_sliding_window", true.into()),
        ("quantization_config", awq),
        ("hidden_size", "3584".into()),
        ("hidden_size", 0.into()),
        ("hidden_size", (-1).into()),
        ("hidden_size", 3584.5.into()),
        ("hidden_size", 3500.into()),
        ("hidden_size", u64::MAX.into()),
        ("num_attention_heads", (u64::MAX / 2 + 1).into()),
        ("num_attention_heads", Value::Null),
        ("num_key_value_heads", 3.into()),
        ("num_hidden_layers", 0.into()),
        ("vocab_size", 0.into()),
        ("max_position_embeddings", 0.into()),
        ("rms_norm_eps", 0.into()),
        ("rms_norm_eps", "small".into()),
        ("rope_theta", 0.into()),
        ("rope_theta", "1e6".into()),
        ("head_dim", 64.into()),
        ("partial_rotary_factor", 0.5.into()),
        ("tie_word_embeddings", "yes".into()),
        ("image_token_id", 152_064.into()),
        ("image_token_id", Value::Null),
        (
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
        ),
        ("rope_scaling.mrope_section", json!([16, 24, 23])),
        ("rope_scaling.mrope_section", json!([16, 24])),
        ("rope_scaling.mrope_section", json!([u64::MAX, 1, 64])),
        ("rope_scaling.rope_theta", 5e5.into()),
        ("rope_scaling.mrope_interleaved", true.into()),
        ("vision_config", Value::Null),
        ("vision_config", json!([])),
        ("vision_config.hidden_act", "quick_gelu".into()),
        ("vision_config.in_chans", 1.into()),
        ("vision_config.in_channels", 4.into()),
        ("vision_config.patch_size", 0.into()),
        ("vision_config.spatial_merge_size", 65.into()),
        ("vision_config.temporal_patch_size", 1000.into()),
        ("vision_config.spatial_patch_size", 16.into()),
        ("vision_config.num_heads", 7.into()),
        ("vision_config.window_size", 14.into()),
        ("vision_config.out_hidden_size", 2048.into()),
        ("vision_config.depth", 1_000_000.into()),
        ("vision_config.fullatt_block_indexes", Value::Null),
        ("vision_config.rope_parameters.rope_theta", 1e6.into()),
        ("vision_config.rope_parameters.rope_type", "yarn".into()),
        ("text_config", "qwen".into()),
    ] {
        let broken = changed(flat(), key, value);
        let key = match key {
            // The width no longer divides by the heads, or the other way round.
            "vision_config.num_heads" => "vision_config.hidden_size",
            key => key,
        };
        names_key(load(&broken), key);
    }
    for (value, key) in [
        (yarn, "rope_scaling.type"),
        (stretched, "rope_scaling.factor"),
        (strange, "rope_scaling.beta_fast"),
    ] {
        names_key(load(&changed(flat(), "rope_scaling", value)), key);
    }
    for (pointer, value) in [
        ("text_config.hidden_size", Value::Null),
        ("text_config.use_sliding_window", true.into()),
        ("text_config.quantization_config", json!({"bits": 8})),
        ("text_config.rope_parameters.rope_type", "dynamic".into()),
    ] {
        names_key(load(&changed(nested(), pointer, value)), pointer);
    }
    let contradicting = json!({"mrope_section": [24, 20, 20]});
    let config = changed(nested(), "text_config.rope_scaling", contradicting);
    names_key(load(&config), "text_config.rope_scaling.mrope_section");
}

#[test]
fn our_own_quantization_is_told_from_others() {
    let own = |precision: &str, block: u32| {
        let about = json!({"quant_method": "eva", "precision": precision, "block_size": block});
        changed(flat(), "quantization_config", about)
    };
    let config = own("int4", 32);
    load(&config).unwrap();
    let dir = directory(&[("config.json", &config)]);
    assert_eq!(stored_precision(dir.path()).unwrap(), Some(Precision::Int4));
    assert_eq!(unknown_keys(dir.path()).unwrap(), []);
    assert_eq!(stored_precision(&published("7b")).unwrap(), None);
    names_key(load(&own("f16", 32)), "quantization_config.precision");
    names_key(load(&own("int4", 64)), "quantization_config.block_size");
}

#[test]
fn a_file_that_is_missing_or_no_object_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = ModelConfig::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
    for broken in [json!([]), json!("text"), Value::Null] {
        let error = load(&broken).unwrap_err().to_string();
        assert!(error.contains("config.json is not valid"), "{error}");
    }
}

#[test]
fn unknown_keys_are_reported_and_metadata_is_not() {
    for size in ["3b", "7b"] {
        assert_eq!(unknown_keys(&published(size)).unwrap(), []);
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for form in ["hf_flat", "hf_model"] {
        let dir = fixtures.join("qwen2_5_vl_random").join(form);
        assert_eq!(unknown_keys(&dir).unwrap(), [], "{form}");
    }
    let mut config = changed(nested(), "new_field", 1.into());
    set(&mut config, "text_config.new_text_field", 1.into());
    set(&mut config, "vision_config.new_vision_field", 1.into());
    let dir = directory(&[
        ("config.json", &config),
        ("generation_config.json", &json!({"new_way": 1})),
        ("preprocessor_config.json", &json!({"do_blur": false})),
    ]);
    ModelConfig::load(dir.path()).unwrap();
    let unknown = unknown_keys(dir.path()).unwrap();
    let unknown: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    assert_eq!(
        unknown,
        [
            "config.json: `vision_config.new_vision_field`",
            "config.json: `text_config.new_text_field`",
            "config.json: `new_field`",
            "generation_config.json: `new_way`",
            "preprocessor_config.json: `do_blur`",
        ]
    );
}

#[test]
fn generation_settings_are_read_and_others_than_ours_refused() {
    let generation = |value: &Value| {
        GenerationConfig::load(directory(&[("generation_config.json", value)]).path())
    };
    let published = GenerationConfig::load(&published("7b")).unwrap();
    assert_eq!(published.eos_token_ids, [151_645, 151_643]);
    assert_eq!(published.repetition_penalty, 1.05);
    assert!(published.do_sample);
    // At that temperature only the likeliest token is left.
    assert_eq!(published.sampling(1), Sampling::Greedy);

    let warm = json!({"do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.8,
        "eos_token_id": 3, "num_beams": 1, "min_p": null, "max_new_tokens": 2048,
        "bad_words_ids": [], "transformers_version": "5.0.0"});
    let config = generation(&warm).unwrap();
    assert_eq!(config.eos_token_ids, [3]);
    assert_eq!(config.repetition_penalty, 1.0);
    let Sampling::Random {
        temperature,
        top_k,
        top_p,
        seed,
    } = config.sampling(9)
    else {
        panic!("not random")
    };
    assert_eq!((temperature, top_k, top_p, seed), (0.7, 20, 0.8, 9));
    let cold = generation(&json!({"temperature": 0.7})).unwrap();
    assert_eq!(cold.sampling(1), Sampling::Greedy, "do_sample is false");

    for (key, value) in [
        ("eos_token_id", "<|im_end|>".into()),
        ("repetition_penalty", 0.into()),
        ("repetition_penalty", (-1).into()),
        ("temperature", (-0.5).into()),
        ("temperature", "low".into()),
        ("top_k", (-1).into()),
        ("top_p", 0.into()),
        ("top_p", 1.5.into()),
        ("num_beams", 4.into()),
        ("min_p", 0.1.into()),
        ("typical_p", 0.9.into()),
        ("no_repeat_ngram_size", 3.into()),
        ("min_new_tokens", 5.into()),
        ("guidance_scale", 1.5.into()),
        ("suppress_tokens", json!([1])),
        ("stop_strings", json!(["\n"])),
        ("forced_eos_token_id", 2.into()),
        ("renormalize_logits", true.into()),
    ] {
        names_key(generation(&json!({key: value})), key);
    }
}

#[test]
fn end_tokens_come_from_config_json_where_nothing_else_names_them() {
    let dir = directory(&[("config.json", &flat())]);
    let load = || GenerationConfig::load(dir.path()).unwrap();
    assert_eq!(load().eos_token_ids, [151_645]);
    assert_eq!(load().repetition_penalty, 1.0);
    std::fs::write(dir.path().join("config.json"), nested().to_string()).unwrap();
    assert_eq!(load().eos_token_ids, [151_645]);
    let own = json!({"eos_token_id": [1, 2]}).to_string();
    std::fs::write(dir.path().join("generation_config.json"), own).unwrap();
    assert_eq!(load().eos_token_ids, [1, 2]);
    let nothing = tempfile::tempdir().unwrap();
    let config = GenerationConfig::load(nothing.path()).unwrap();
    assert_eq!(config, GenerationConfig::default());
}

#[test]
fn preprocessors_are_read_in_all_forms() {
    let load =
        |value: &Value| ImageConfig::load(directory(&[("preprocessor_config.json", value)]).path());
    let published = ImageConfig::load(&published("7b")).unwrap();
    assert_eq!(published, ImageConfig::default());
    let edges = json!({"shortest_edge": 3136, "longest_edge": 12_845_056});
    let pixels = json!({"min_pixels": 3136, "max_pixels": 12_845_056});
    for form in [
        json!({"size": edges}),
        json!({"size": pixels}),
        json!({"size": edges, "min_pixels": 3136, "max_pixels": 12_845_056, "do_resize": true,
            "do_rescale": true, "do_normalize": true, "resample": 3, "merge_size": 2,
            "rescale_factor": 0.003_921_568_627_450_98, "crop_size": null, "device": null,
            "image_processor_type": "Qwen2VLImageProcessorFast", "do_pad": null}),
        pixels.clone(),
    ] {
        assert_eq!(load(&form).unwrap(), published, "{form}");
    }
    // As `transformers` takes them: what stands outside counts, and the default is smaller.
    let both = json!({"size": edges, "max_pixels": 1_000_000});
    assert_eq!(load(&both).unwrap().max_pixels, 1_000_000);
    assert_eq!(load(&json!({})).unwrap().max_pixels, 28 * 28 * 1280);
    assert_eq!(load(&json!({"image_mean": 0.5})).unwrap().mean, [0.5; 3]);

    let processor = json!({"processor_class": "Qwen2_5_VLProcessor",
        "image_processor": {"size": edges, "image_std": [0.5, 0.5, 0.5]},
        "video_processor": {"size": {"shortest_edge": 1}}});
    let dir = directory(&[("processor_config.json", &processor)]);
    assert_eq!(ImageConfig::load(dir.path()).unwrap().std, [0.5; 3]);
    let old = json!({"processor_class": "Qwen2_5_VLProcessor"});
    let dir = directory(&[
        ("processor_config.json", &old),
        ("preprocessor_config.json", &both),
    ]);
    assert_eq!(ImageConfig::load(dir.path()).unwrap().max_pixels, 1_000_000);

    for (key, value) in [
        ("do_resize", false.into()),
        ("do_rescale", false.into()),
        ("do_normalize", false.into()),
        ("do_center_crop", true.into()),
        ("do_pad", true.into()),
        ("resample", 2.into()),
        ("rescale_factor", 0.007_843_1.into()),
        ("image_processor_type", "CLIPImageProcessor".into()),
        ("image_mean", json!([0.5, 0.5])),
        ("image_std", json!([0.5, 0, 0.5])),
        ("max_pixels", 100.into()),
        ("max_pixels", (-1).into()),
        ("max_pixels", 1_000_000_000_000_000_u64.into()),
        ("size.height", 224.into()),
        ("patch_size", 16.into()),
        ("temporal_patch_size", 1.into()),
        ("merge_size", 1.into()),
    ] {
        names_key(load(&changed(json!({}), key, value)), key);
    }
    // The sides are those of the model beside it.
    let mut config = flat();
    set(&mut config, "vision_config.patch_size", 16.into());
    let with = |images: Value| {
        let files = [
            ("config.json", &config),
            ("preprocessor_config.json", &images),
        ];
        ImageConfig::load(directory(&files).path())
    };
    with(json!({"patch_size": 16})).unwrap();
    names_key(with(json!({"patch_size": 14})), "patch_size");
    names_key(with(json!({})), "patch_size");
}

/// eva-tiny's directory, with no template but what a test writes.
fn chat_directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    eva_burn::bundled::unpack(dir.path()).unwrap();
    std::fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
    std::fs::remove_file(dir.path().join("tokenizer_config.json")).unwrap();
    dir
}

/// What a template of this directory makes of nothing.
fn rendered(dir: &Path) -> Result<String, ChatError> {
    let chat = Chat::load(dir, 5)?;
    let nothing: [eva_core::Message<'_, eva_core::RgbImage>; 0] = [];
    chat.decode(&chat.encode(&nothing, &[])?)
}

#[test]
fn chat_templates_are_read_in_all_forms_and_in_order() {
    let dir = chat_directory();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let error = rendered(dir.path()).unwrap_err().to_string();
    assert!(error.contains("no chat template"), "{error}");

    let named = |names: [&str; 2]| {
        let [first, second] = names;
        json!({"chat_template": [
            {"name": first, "template": "first"}, {"name": second, "template": "second"},
        ]})
    };
    write(
        "tokenizer_config.json",
        &named(["tool_use", "rag"]).to_string(),
    );
    let error = rendered(dir.path()).unwrap_err().to_string();
    assert!(error.contains("`chat_template`"), "{error}");
    assert!(error.contains("tool_use"), "{error}");
    write(
        "tokenizer_config.json",
        &named(["tool_use", "default"]).to_string(),
    );
    assert_eq!(rendered(dir.path()).unwrap(), "second");
    write(
        "tokenizer_config.json",
        r#"{"chat_template": "third", "model_max_length": 9}"#,
    );
    assert_eq!(rendered(dir.path()).unwrap(), "third");
    write("chat_template.json", r#"{"chat_template": "fourth"}"#);
    assert_eq!(rendered(dir.path()).unwrap(), "fourth");
    write("chat_template.jinja", "fifth");
    assert_eq!(rendered(dir.path()).unwrap(), "fifth");
    write("chat_template.jinja", "{% for %}");
    let error = rendered(dir.path()).unwrap_err().to_string();
    assert!(error.contains("chat template failed"), "{error}");
}

#[test]
fn tokenizers_of_another_model_are_refused() {
    let dir = chat_directory();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("chat_template.jinja", "text");
    let error = Chat::load(dir.path(), 600).unwrap_err().to_string();
    assert!(error.contains("`image_token_id`"), "{error}");
    let added = |content: &str| {
        json!({"added_tokens_decoder": {"5": {"content": content, "special": true}}}).to_string()
    };
    write("tokenizer_config.json", &added("<|image_pad|>"));
    rendered(dir.path()).unwrap();
    write("tokenizer_config.json", &added("<|video_pad|>"));
    let error = rendered(dir.path()).unwrap_err().to_string();
    assert!(error.contains("<|video_pad|>"), "{error}");
    assert!(error.contains("<|image_pad|>"), "{error}");

    // More tokens than embeddings.
    let config = dir.path().join("config.json");
    let smaller = changed(json_of(&config), "vocab_size", 600.into());
    std::fs::write(&config, smaller.to_string()).unwrap();
    write("tokenizer_config.json", "{}");
    let device = eva_burn::DeviceChoice::Cpu.open().unwrap();
    let error = eva_burn::BurnPolicy::load(dir.path(), &device).unwrap_err();
    assert!(error.to_string().contains("`vocab_size`"), "{error}");
}
