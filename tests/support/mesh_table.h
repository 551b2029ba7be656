// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Every mesh of up to 8 ranks whose axes are powers of two, with every stage of ZeRO, for a dense
// model and one with experts, and whether a run may have it.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "tests/support/pipeline_training.h"
#include "trireme/base/error.h"
#include "trireme/train/prepare_run.h"

namespace trireme::testing {

struct MeshCase {
  int pp = 1, dp = 1, ep = 1, cp = 1, tp = 1, shard = 0;
  bool experts = false;

  int ranks() const { return pp * dp * ep * cp * tp; }
  std::string text() const {
    return fmt::format("{}pp {} dp {} ep {} cp {} tp {} shard {}", experts ? "experts, " : "", pp,
                       dp, ep, cp, tp, shard);
  }
  MeshCase without_pipeline() const {
    MeshCase other = *this;
    other.pp = 1;
    return other;
  }
  auto operator<=>(const MeshCase&) const = default;
};

inline std::vector<MeshCase> all_meshes(bool experts) {
  std::vector<MeshCase> cases;
  const std::vector<int> sizes = {1, 2, 4, 8};
  for (const int pp : sizes) {
    for (const int ep : sizes) {
      for (const int cp : sizes) {
        for (const int tp : sizes) {
          for (const int dp : sizes) {
            for (const int shard : {0, 1, 2, 3}) {
              const MeshCase one{pp, dp, ep, cp, tp, shard, experts};
              if (one.ranks() <= 8) cases.push_back(one);
            }
          }
        }
      }
    }
  }
  return cases;
}

// 8 layers, 8 heads, 16 tokens, micro-batches for all of these ranks. No clipping, whose scale is
// of a sum over ranks.
inline TrainConfig mesh_config(const MeshCase& mesh) {
  TrainConfig config = pipeline_config(mesh.experts ? "experts" : "llama", "no");
  config.model.layers = 8;
  config.model.width = 32;
  config.model.heads = config.model.kv_heads = 8;
  config.model.mlp_width = 44;
  config.model.context = 16;
  if (mesh.experts) config.model.experts.count = 8;
  config.model.resolve(0);
  config.data.text = "text";
  config.batch = {.micro_batch_size = 2, .micro_batches = 8};
  config.train.clip_norm = 0;
  config.parallel.pp = mesh.pp;
  config.parallel.dp = mesh.dp;
  config.parallel.ep = mesh.ep;
  config.parallel.cp = mesh.cp;
  config.parallel.tp = mesh.tp;
  config.parallel.shard = mesh.shard;
  return config;
}

// Why a run may not have the mesh; empty: it may.
inline std::string refusal(const MeshCase& mesh) {
  try {
    const TrainConfig config = mesh_config(mesh);
    config.validate();
    check_layout(config, mesh.ranks(), mesh.ranks());
  } catch (const ConfigError& error) {
    return error.what();
  }
  return {};
}

}  // namespace trireme::testing
