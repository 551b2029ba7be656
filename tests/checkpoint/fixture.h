// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Small checkpoints for the tests of checkpoint/, in variants whose every file differs.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/checkpoint/tensors.h"
#include "tests/support/temporary_folder.h"
#include "trireme/checkpoint/checkpoint.h"

namespace trireme::testing {

class CheckpointTest : public ::testing::Test {
 protected:
  // The folder of checkpoints; not there at first.
  std::string folder() const { return (temporary_ / "checkpoints").string(); }
  std::string step_folder(const std::string& name) const { return folder() + "/" + name; }

  static TensorSet weights(int variant) {
    TensorSet set(static_cast<std::size_t>(variant));
    set.add("layer.weight", DType::kF32, {3, 5});
    set.add("layer.bias", DType::kBF16, {7});
    return set;
  }

  static std::string save(const std::string& folder, std::int64_t step, int variant) {
    CheckpointWriter writer(folder, step);
    writer.add_tensors("model.safetensors", weights(variant).tensors());
    writer.add_file("tokenizer.json", "{\"variant\": " + std::to_string(variant) + "}\n");
    return writer.commit({{"variant", std::to_string(variant)}, {"note", "\xc3\xa4 \"\\\n"}});
  }
  std::string save(std::int64_t step, int variant) const { return save(folder(), step, variant); }

  // Opens a checkpoint that must be whole; returns which variant it holds.
  static int variant_of(const std::string& path) {
    const Checkpoint checkpoint = Checkpoint::open(path);
    const int variant = std::stoi(checkpoint.state_at("variant"));
    const SafetensorsFile file = checkpoint.tensors("model.safetensors");
    const TensorSet expected = weights(variant);
    for (const auto& [name, view] : expected.tensors()) {
      EXPECT_TRUE(same_tensor(file.at(name), view)) << path << " " << name;
    }
    EXPECT_EQ(checkpoint.file("tokenizer.json"),
              "{\"variant\": " + std::to_string(variant) + "}\n");
    return variant;
  }

  // Names in the folder of checkpoints, sorted.
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder())) {
      found.push_back(entry.path().filename().string());
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  TemporaryFolder temporary_{memory_folder()};
};

}  // namespace trireme::testing
