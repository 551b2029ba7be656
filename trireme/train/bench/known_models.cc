// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/bench/known_models.h"

#include <fmt/ranges.h>

#include "trireme/base/error.h"

namespace trireme {
namespace {

struct KnownModel {
  const char* name;
  const char* family;
  std::int64_t layers, width, heads, mlp_width, vocab_size;
  nn::ExpertsConfig experts = {};
};

// GPT-2's sizes: Radford et al. 2019, table 2, where the first two are called 117M and 345M;
// llama-160m: JackFram/llama-160m on Hugging Face; its 8x2 has 8 experts of half its MLP's width,
// of which a token uses 2; tiny: for tests.
const KnownModel kModels[] = {
    {"gpt2-124m", "gpt2", 12, 768, 12, 3072, 50257},
    {"gpt2-350m", "gpt2", 24, 1024, 16, 4096, 50257},
    {"llama-160m", "llama", 12, 768, 12, 3072, 32000},
    {"llama-160m-8x2", "llama", 12, 768, 12, 3072, 32000, {.count = 8, .width = 1536}},
    {"tiny", "gpt2", 2, 48, 4, 192, 211},
    {"tiny-llama", "llama", 2, 48, 4, 128, 211},
};

}  // namespace

std::vector<std::string> known_model_names() {
  std::vector<std::string> names;
  for (const KnownModel& model : kModels) names.emplace_back(model.name);
  return names;
}

nn::ModelConfig known_model(std::string_view name, std::int64_t context) {
  for (const KnownModel& model : kModels) {
    if (name != model.name) continue;
    nn::ModelConfig config;
    config.family = model.family;
    config.layers = model.layers;
    config.width = model.width;
    config.heads = model.heads;
    config.mlp_width = model.mlp_width;
    config.vocab_size = model.vocab_size;
    config.experts = model.experts;
    config.context = context;
    config.resolve(0);
    return config;
  }
  throw_error<ConfigError>("there is no model '{}'; use {}", name,
                           fmt::join(known_model_names(), ", "));
}

}  // namespace trireme
