// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The rules of the source tree that a reader of docs/design.md relies on, as functions from a tree
// to the list of its breaches, so that they can be shown to fail on a tree made for it.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace trireme::testing {

// A layer of docs/design.md's table: the layers named after its arrow. It may include those, and
// those that they may include.
struct LayerRule {
  std::vector<std::string> depends = {};
  bool with_torch = false;
  // Folders directly below it; no other may stand there, and they never include each other. None
  // given: anything may.
  std::set<std::string> siblings = {};
};

class LayerRules {
 public:
  explicit LayerRules(std::map<std::string, LayerRule> rules);
  // The table of docs/design.md.
  static LayerRules of_trireme();

  const std::map<std::string, LayerRule>& rules() const { return rules_; }
  // Every layer that the given one may include, itself too.
  const std::set<std::string>& reachable(const std::string& layer) const;

 private:
  std::map<std::string, LayerRule> rules_;
  std::map<std::string, std::set<std::string>> reachable_;
};

// Each returns one line per breach, "trireme/nn/linear.cc:12: ...", in the order of paths. root is
// the folder that holds trireme/.

// Folders of trireme/ that are no layer, layers without a folder, files above the layers.
std::vector<std::string> check_folders(const std::filesystem::path& root, const LayerRules& rules);
// Includes of a layer that is not reachable, of a sibling, of another layer's internal/, of
// LibTorch where there is none, of <torch/torch.h> in a header, of own files by a path not from the
// root. A source that does not include its own header first: nothing else shows that the header
// compiles alone (TriremeLayer.cmake).
std::vector<std::string> check_includes(const std::filesystem::path& root, const LayerRules& rules);
// trireme_layer() of trireme/<layer>/CMakeLists.txt: named as its folder, depends on what the layer
// reaches, and reaches what the layer's files include.
std::vector<std::string> check_cmake(const std::filesystem::path& root, const LayerRules& rules);
// Headers above 400 lines, implementations above 600, files without the licence, lines above 100
// characters; in the given folders below root.
std::vector<std::string> check_files(const std::filesystem::path& root,
                                     const std::vector<std::string>& folders);

}  // namespace trireme::testing
