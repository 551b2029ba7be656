// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The parsed form of a configuration, shared by the parts of base/config. Not for other layers.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "trireme/base/config.h"

namespace trireme::detail {

// A value of a configuration with the place it came from.
struct ConfigNode {
  enum class Kind { kNothing, kScalar, kList, kSection };
  struct Entry;

  Kind kind = Kind::kNothing;
  std::string where;  // "train.yaml:7", or "command line"
  std::string text;   // of a scalar
  bool quoted = false;
  std::vector<ConfigNode> items;  // of a list
  std::vector<Entry> entries;     // of a section, in the order of the file, then of the overrides

  const Entry* find(std::string_view key) const;
  Entry* find(std::string_view key);
};

struct ConfigNode::Entry {
  std::string key;
  int order = 0;  // of appearance, over the whole configuration
  ConfigNode value;
};

// "a section", "a list", "nothing" or "'text'", for "..., got {}".
std::string describe(const ConfigNode& node);

// "a.b" and "c" make "a.b.c"; an empty section is the root.
std::string join_path(std::string_view section, std::string_view key);

// Parses YAML into a node of our own. where is given each line, counted from 1. order counts the
// keys. Throws ConfigError.
class YamlSource {
 public:
  // Lines are named "name:line" or, where numbered is false, "name" alone.
  YamlSource(std::string name, bool numbered) : name_(std::move(name)), numbered_(numbered) {}

  std::string where(int line) const;
  // The text's one document; kNothing for an empty text.
  ConfigNode parse(const std::string& text, int& order) const;

 private:
  std::string name_;
  bool numbered_;
};

// Lays one "a.b.c=value" over the root.
void apply_override(ConfigNode& root, const std::string& override_text, int& order);

}  // namespace trireme::detail

namespace trireme {

struct ConfigTree::Impl {
  detail::ConfigNode root;
};

}  // namespace trireme
