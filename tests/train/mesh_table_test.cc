// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// docs/parallelism_meshes.md says which meshes a run may have: it is made here. A mesh that it
// calls legal is trained by PipelineMeshes, MeshLayouts or MeshStages.

#include "tests/support/mesh_table.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace trireme {
namespace {

using testing::all_meshes;
using testing::MeshCase;

constexpr char kHead[] = R"(# Which meshes a run may have

Made by a test (`MeshTable` in `tests/train/mesh_table_test.cc`), which asks the checks that
`trireme train` makes before anything is opened. Docs of each axis:
[parallelism.md](parallelism.md).

## All meshes of up to 8 workers

Axes of 1, 2, 4 and 8 workers, of a model of 8 blocks and 8 heads with 8 experts (ep 1: without as
well) and 8 micro-batches a step. A cell has the stages of ZeRO that are legal; all of them are
trained by tests: with a pipeline to the same bits as the mesh without it, and these to the same
model as on one worker, but for rounding.

)";

// By dp; the stages that are legal.
std::string cell(MeshCase mesh) {
  if (mesh.ranks() > 8) return "";
  std::string stages;
  for (mesh.shard = 0; mesh.shard <= 3; ++mesh.shard) {
    std::string why = testing::refusal(mesh);
    if (why.empty() && mesh.ep == 1) {
      MeshCase dense = mesh;
      dense.experts = false;
      why = testing::refusal(dense);
    }
    if (why.empty()) stages += fmt::format("{}{}", stages.empty() ? "" : " ", mesh.shard);
  }
  return stages.empty() ? "none" : stages;
}

std::string mesh_table() {
  std::string text =
      "| pp | ep | cp | tp | dp 1 | dp 2 | dp 4 | dp 8 |\n|---|---|---|---|---|---|---|---|\n";
  for (const MeshCase& mesh : all_meshes(true)) {
    if (mesh.dp != 1 || mesh.shard != 0) continue;
    text += fmt::format("| {} | {} | {} | {} |", mesh.pp, mesh.ep, mesh.cp, mesh.tp);
    for (const int dp : {1, 2, 4, 8}) {
      MeshCase one = mesh;
      one.dp = dp;
      text += fmt::format(" {} |", cell(one));
    }
    text += "\n";
  }
  return text;
}

struct Setting {
  std::string name;
  MeshCase mesh;
  std::function<void(TrainConfig&)> change;
};

// What does not go together, and what fits where.
std::vector<Setting> settings() {
  const auto tp = [](int size) { return MeshCase{.tp = size}; };
  const auto pp = [](int size) { return MeshCase{.pp = size}; };
  const auto schedule = [](const std::string& name) {
    return [name](TrainConfig& c) { c.parallel.pipeline.schedule = name; };
  };
  const auto optimizer = [](const std::string& name) {
    return [name](TrainConfig& c) { c.optimizer.name = name; };
  };
  std::vector<Setting> all;
  for (const char* name : {"gpipe", "1f1b", "interleaved", "zb-h1", "zbv", "dualpipev"}) {
    all.push_back({fmt::format("pp 4, schedule {}", name), pp(4), schedule(name)});
  }
  all.push_back({"pp 8, schedule zbv: 16 stages of 8 blocks", pp(8), schedule("zbv")});
  all.push_back({"pp 16", pp(16), {}});
  all.push_back({"pp 2, 3 workers of dp, 8 micro-batches", {.pp = 2, .dp = 3}, {}});
  all.push_back({"pp 2, with a blocks' cut of 3 and 4", pp(2), [](TrainConfig& c) {
                   c.parallel.pipeline.layers = {"3", "4"};
                 }});
  all.push_back(
      {"pp 2, parameter servers", pp(2), [](TrainConfig& c) { c.parallel.ps.servers = 1; }});
  for (const char* name : {"adamw", "lamb", "muon", "adafactor"}) {
    all.push_back({fmt::format("pp 2, optimizer {}", name), pp(2), optimizer(name)});
    all.push_back({fmt::format("tp 2, optimizer {}", name), tp(2), optimizer(name)});
  }
  all.push_back({"tp 3 of 8 heads", tp(3), {}});
  all.push_back({"tp 16 of 8 heads", tp(16), {}});
  all.push_back({"tp 2, sequence", tp(2), [](TrainConfig& c) { c.parallel.sequence = true; }});
  all.push_back({"sequence without tp", {}, [](TrainConfig& c) { c.parallel.sequence = true; }});
  all.push_back({"tp 2, sequence, experts", {.tp = 2, .experts = true}, [](TrainConfig& c) {
                   c.parallel.sequence = true;
                 }});
  all.push_back({"ep 2 without experts", {.ep = 2}, {}});
  all.push_back({"ep 16 of 8 experts", {.ep = 16, .experts = true}, {}});
  all.push_back({"ep 2, balance loss", {.ep = 2, .experts = true}, [](TrainConfig& c) {
                   c.model.experts.balance = "loss";
                 }});
  all.push_back({"cp 2, experts, balance loss", {.cp = 2, .experts = true}, [](TrainConfig& c) {
                   c.model.experts.balance = "loss";
                 }});
  all.push_back({"cp 2, experts, capacity", {.cp = 2, .experts = true}, [](TrainConfig& c) {
                   c.model.experts.capacity_factor = 1.5;
                 }});
  all.push_back({"cp 16 of 16 tokens", {.cp = 16}, {}});
  all.push_back({"cp 4, tp 4 of 8 heads, ulysses", {.cp = 4, .tp = 4}, [](TrainConfig& c) {
                   c.parallel.cp_method = "ulysses";
                 }});
  all.push_back({"dp 4, shard 0, shard_ranks 2", {.dp = 4}, [](TrainConfig& c) {
                   c.parallel.shard_ranks = 2;
                 }});
  all.push_back({"dp 4, shard 2, shard_ranks 3", {.dp = 4, .shard = 2}, [](TrainConfig& c) {
                   c.parallel.shard_ranks = 3;
                 }});
  all.push_back({"shard 1, parameter servers", {.shard = 1}, [](TrainConfig& c) {
                   c.parallel.ps.servers = 1;
                 }});
  return all;
}

std::string verdict(const Setting& setting) {
  try {
    TrainConfig config = testing::mesh_config(setting.mesh);
    if (setting.change) setting.change(config);
    config.validate();
    check_layout(config, setting.mesh.ranks(), setting.mesh.ranks());
  } catch (const ConfigError& error) {
    return fmt::format("no: {}", error.what());
  }
  return "yes";
}

std::string table() {
  std::string text = kHead + mesh_table();
  text += "\n## Settings that go together, and that do not\n\n";
  text +=
      "Each of the same model and step; what is refused is refused with the line that is here.\n\n";
  text += "| settings | legal |\n|---|---|\n";
  for (const Setting& setting : settings()) {
    text += fmt::format("| {} | {} |\n", setting.name, verdict(setting));
  }
  return text;
}

TEST(MeshTable, OfTheDocsIsTrue) {
  const std::string path = TRIREME_SOURCE_DIR "/docs/parallelism_meshes.md";
  std::ostringstream docs;
  docs << std::ifstream(path).rdbuf();
  const std::string made = table();
  if (docs.str() == made) return;
  const std::string copy = TRIREME_BINARY_DIR "/parallelism_meshes.md";
  std::ofstream(copy) << made;
  FAIL() << path << " is not what the program says: look at the difference from " << copy
         << ", and if that is right, copy it there";
}

}  // namespace
}  // namespace trireme
