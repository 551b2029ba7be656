// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a model of experts adds to ModelConfig (model.experts): in some of its blocks many MLPs in
// the place of one, of which each token uses a few.
//
//   Mixtral (Jiang et al. 2024)            count 8, top_k 2
//   DeepSeek-V3 (DeepSeek-AI 2024)         count 256, top_k 8, width 2048, shared 1, first_dense 3,
//                                          score sigmoid, scale 2.5, balance bias
//   Switch (Fedus et al. 2021)             count 64, top_k 1, every 2, normalize false,
//                                          capacity_factor 1.25
#pragma once

#include <cstdint>
#include <string>

#include "trireme/base/config.h"

namespace trireme::nn {

struct ExpertsConfig {
  std::int64_t count = 0;  // of a layer; 0: a dense model
  std::int64_t top_k = 2;  // that a token uses
  std::int64_t width = 0;  // hidden elements of an expert; 0: mlp_width
  // Experts that every token uses beside its own: one MLP of shared x width hidden elements.
  std::int64_t shared = 0;
  std::int64_t first_dense = 0;  // layers before the first that may have experts
  std::int64_t every = 1;        // of the layers after those, the last of every so many has experts
  std::string score = "softmax";  // of all experts together; "sigmoid": of each by itself
  bool normalize = true;          // a token's weights are divided by their sum
  double scale = 1.0;             // times which they count
  // 0: every token reaches its experts. Above: an expert takes, of the N tokens of a micro-batch,
  // at most capacity_factor x N top_k / count, rounded up, the first ones.
  double capacity_factor = 0.0;
  // What keeps experts equally busy. "loss": a loss for it (Shazeer et al. 2017; Fedus et al. 2021,
  // 2.2); "bias": one number for each expert that is added to its scores where tokens choose, and
  // moves by bias_speed after each step (Wang et al. 2024; DeepSeek-AI 2024, 2.1.2); "none".
  std::string balance = "loss";
  double balance_coefficient = 0.01;  // of that loss, in the model's
  double bias_speed = 0.001;
  double z_coefficient = 0.0;  // of the router's z-loss (Zoph et al. 2022, 3.1), in the model's

  void visit(ConfigFields& f);
  // Fills width, then checks. Throws ConfigError with the numbers that clash.
  void resolve(std::int64_t layers, std::int64_t mlp_width);

  bool operator==(const ExpertsConfig&) const = default;

  // Whether that layer, from 0, has experts.
  bool in_layer(std::int64_t layer) const;
  std::int64_t num_layers(std::int64_t layers) const;  // that have
  // Rows that an expert takes of N tokens; N where it takes all.
  std::int64_t capacity(std::int64_t tokens) const;
};

}  // namespace trireme::nn
