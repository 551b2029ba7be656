// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// YAML text to ConfigNode. Works on yaml-cpp's events, not on its node graph, because the graph
// keeps duplicate keys without a word and expands aliases without a bound.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <optional>
#include <sstream>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/base/internal/config_node.h"

namespace trireme::detail {
namespace {

class NodeBuilder final : public YAML::EventHandler {
 public:
  NodeBuilder(const YamlSource& source, int& order) : source_(source), order_(order) {}

  ConfigNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) {
      throw_error<ConfigError>("{}: a second YAML document ('---'), wanted one", where(mark));
    }
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check_plain(mark, "?", anchor);
    add(make(mark, ConfigNode::Kind::kNothing));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw_error<ConfigError>("{}: YAML aliases ('*name') are not read, write the value out",
                             where(mark));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_plain(mark, tag, anchor);
    ConfigNode node = make(mark, ConfigNode::Kind::kScalar);
    node.text = value;
    node.quoted = tag == "!";
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check_plain(mark, tag, anchor);
    open(make(mark, ConfigNode::Kind::kList));
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check_plain(mark, tag, anchor);
    open(make(mark, ConfigNode::Kind::kSection));
  }
  void OnMapEnd() override { close(); }

 private:
  // A list or a section that is being filled; key is what the section's next value belongs to.
  struct Open {
    ConfigNode node;
    std::optional<ConfigNode::Entry> key;
  };

  std::string where(const YAML::Mark& mark) const { return source_.where(mark.line + 1); }

  ConfigNode make(const YAML::Mark& mark, ConfigNode::Kind kind) const {
    ConfigNode node;
    node.kind = kind;
    node.where = where(mark);
    return node;
  }

  void check_plain(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) const {
    if (!tag.empty() && tag != "?" && tag != "!") {
      throw_error<ConfigError>("{}: YAML tags ('{}') are not read, leave it out", where(mark), tag);
    }
    if (anchor != YAML::NullAnchor) {
      throw_error<ConfigError>("{}: YAML anchors ('&name') are not read, leave it out",
                               where(mark));
    }
  }

  bool expects_key() const {
    return !open_.empty() && open_.back().node.kind == ConfigNode::Kind::kSection &&
           !open_.back().key;
  }

  void open(ConfigNode node) {
    if (expects_key()) refuse_key(node);
    open_.push_back({std::move(node), std::nullopt});
  }

  void close() {
    ConfigNode node = std::move(open_.back().node);
    open_.pop_back();
    add(std::move(node));
  }

  void add(ConfigNode node) {
    if (open_.empty()) {
      root_ = std::move(node);
    } else if (expects_key()) {
      add_key(node);
    } else if (open_.back().node.kind == ConfigNode::Kind::kList) {
      open_.back().node.items.push_back(std::move(node));
    } else {
      // A value is said to be where its key is: that is the line a reader looks for.
      node.where = open_.back().key->value.where;
      open_.back().key->value = std::move(node);
      open_.back().node.entries.push_back(std::move(*open_.back().key));
      open_.back().key.reset();
    }
  }

  void add_key(const ConfigNode& node) {
    if (node.kind != ConfigNode::Kind::kScalar) refuse_key(node);
    if (const auto* first = open_.back().node.find(node.text)) {
      throw_error<ConfigError>("{}: key '{}' is already set at {}, remove one of them", node.where,
                               node.text, first->value.where);
    }
    ConfigNode::Entry entry{node.text, order_++, {}};
    entry.value.where = node.where;
    open_.back().key = std::move(entry);
  }

  // yaml-cpp takes a bracket that is never closed for the start of a key.
  [[noreturn]] void refuse_key(const ConfigNode& node) const {
    const bool bracket = node.kind != ConfigNode::Kind::kNothing;
    throw_error<ConfigError>("{}: a key is a plain word, got {}{}", node.where, describe(node),
                             bracket ? "; is a bracket not closed?" : "");
  }

  const YamlSource& source_;
  int& order_;
  int documents_ = 0;
  ConfigNode root_;
  std::vector<Open> open_;
};

}  // namespace

const ConfigNode::Entry* ConfigNode::find(std::string_view key) const {
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const Entry& entry) { return entry.key == key; });
  return found == entries.end() ? nullptr : &*found;
}

ConfigNode::Entry* ConfigNode::find(std::string_view key) {
  return const_cast<Entry*>(std::as_const(*this).find(key));
}

std::string describe(const ConfigNode& node) {
  switch (node.kind) {
    case ConfigNode::Kind::kNothing:
      return "nothing";
    case ConfigNode::Kind::kScalar:
      return node.quoted ? fmt::format("the text '{}'", node.text) : fmt::format("'{}'", node.text);
    case ConfigNode::Kind::kList:
      return "a list";
    case ConfigNode::Kind::kSection:
      return "a section";
  }
  return "?";
}

std::string join_path(std::string_view section, std::string_view key) {
  return section.empty() ? std::string(key) : fmt::format("{}.{}", section, key);
}

std::string YamlSource::where(int line) const {
  return numbered_ ? fmt::format("{}:{}", name_, line) : name_;
}

ConfigNode YamlSource::parse(const std::string& text, int& order) const {
  // yaml-cpp takes byte 4 for the end of the file and would drop the rest silently.
  int line = 1;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 && c != '\n' && c != '\r' && c != '\t') {
      throw_error<ConfigError>("{}: not a text file, it holds byte {:#04x}", where(line), byte);
    }
    line += c == '\n' ? 1 : 0;
  }
  std::istringstream stream(text);
  NodeBuilder builder(*this, order);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    throw_error<ConfigError>("{}: not valid YAML: {}", where(error.mark.line + 1), error.msg);
  }
  return builder.take();
}

}  // namespace trireme::detail
