// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "trireme/base/config.h"
#include "trireme/base/error.h"
#include "trireme/base/internal/config_node.h"

namespace trireme {
namespace detail {
namespace {

constexpr const char* kCommandLine = "command line";

std::vector<std::string> split_key(const std::string& key, const std::string& override_text) {
  std::vector<std::string> parts(1);
  for (const char c : key) {
    const bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '_' || c == '-';
    if (c == '.') {
      parts.emplace_back();
    } else if (word) {
      parts.back() += c;
    } else {
      throw_error<ConfigError>("{}: '{}': a key is made of letters, digits, '_' and '.', got '{}'",
                               kCommandLine, override_text, key);
    }
  }
  if (std::any_of(parts.begin(), parts.end(), [](const auto& part) { return part.empty(); })) {
    throw_error<ConfigError>("{}: '{}': key '{}' has an empty part, wanted section.key=value",
                             kCommandLine, override_text, key);
  }
  return parts;
}

// Lists and quoted text are YAML; anything else stands for itself, so that '#', ': ' and '*' need
// no quotes of YAML's inside the quotes of the shell.
ConfigNode override_value(const std::string& text, const std::string& override_text, int& order) {
  ConfigNode node;
  node.kind = ConfigNode::Kind::kScalar;
  node.text = text;
  if (!text.empty() && std::strchr("[{\"'", text.front()) != nullptr) {
    const YamlSource source(fmt::format("{}: '{}'", kCommandLine, override_text), false);
    node = source.parse(text, order);
  }
  if (node.kind == ConfigNode::Kind::kSection) {
    throw_error<ConfigError>(
        "{}: '{}' is a whole section, set its keys one by one (section.key=value)", kCommandLine,
        override_text);
  }
  node.where = kCommandLine;
  for (ConfigNode& item : node.items) item.where = kCommandLine;
  return node;
}

}  // namespace

void apply_override(ConfigNode& root, const std::string& override_text, int& order) {
  const std::size_t equals = override_text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw_error<ConfigError>("{}: '{}' is not of the form section.key=value", kCommandLine,
                             override_text);
  }
  const std::vector<std::string> parts = split_key(override_text.substr(0, equals), override_text);
  ConfigNode value = override_value(override_text.substr(equals + 1), override_text, order);

  ConfigNode* node = &root;
  std::string path;
  for (const std::string& part : parts) {
    if (node->kind == ConfigNode::Kind::kNothing) node->kind = ConfigNode::Kind::kSection;
    if (node->kind != ConfigNode::Kind::kSection) {
      throw_error<ConfigError>("{}: '{}': {} is not a section, {} sets it to {}", kCommandLine,
                               override_text, path, node->where, describe(*node));
    }
    path = join_path(path, part);
    ConfigNode::Entry* entry = node->find(part);
    if (entry == nullptr) {
      ConfigNode::Entry fresh{part, order++, {}};
      fresh.value.where = kCommandLine;
      entry = &node->entries.emplace_back(std::move(fresh));
    }
    node = &entry->value;
  }
  *node = std::move(value);
}

}  // namespace detail

namespace {

// Far above any configuration written by people: a weights file given by mistake is not read whole.
constexpr std::uintmax_t kMaxFileBytes = 16u << 20;

std::string read_config_file(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    throw_error<ConfigError>("{}: is a folder, wanted a YAML file", path);
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) throw_error<ConfigError>("{}: cannot be opened: {}", path, std::strerror(errno));
  const std::uintmax_t bytes = std::filesystem::file_size(path, ignored);
  if (!ignored && bytes > kMaxFileBytes) {
    throw_error<ConfigError>("{}: {} bytes are too many for a configuration, at most {} are read",
                             path, bytes, kMaxFileBytes);
  }
  std::ostringstream text;
  text << file.rdbuf();
  if (file.bad()) throw_error<ConfigError>("{}: cannot be read: {}", path, std::strerror(errno));
  return text.str();
}

}  // namespace

ConfigTree::ConfigTree(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ConfigTree::ConfigTree(ConfigTree&&) noexcept = default;
ConfigTree& ConfigTree::operator=(ConfigTree&&) noexcept = default;
ConfigTree::~ConfigTree() = default;

ConfigTree ConfigTree::load(const std::string& path, const std::vector<std::string>& overrides) {
  return parse(read_config_file(path), path, overrides);
}

ConfigTree ConfigTree::parse(const std::string& text, const std::string& name,
                             const std::vector<std::string>& overrides) {
  auto impl = std::make_unique<Impl>();
  int order = 0;
  impl->root = detail::YamlSource(name, true).parse(text, order);
  const auto kind = impl->root.kind;
  if (kind == detail::ConfigNode::Kind::kNothing) {
    impl->root.kind = detail::ConfigNode::Kind::kSection;
  } else if (kind != detail::ConfigNode::Kind::kSection) {
    throw_error<ConfigError>("{}: a configuration is made of 'key: value' lines, got {}",
                             impl->root.where, detail::describe(impl->root));
  }
  for (const std::string& text_of_override : overrides) {
    detail::apply_override(impl->root, text_of_override, order);
  }
  return ConfigTree(std::move(impl));
}

}  // namespace trireme
