// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Configuration: YAML in, one plain struct per component out.
//
// A component declares its settings once, as a struct with defaults and a visit() that names them:
//
//   struct BatchConfig {
//     std::int64_t micro_batch_size = 8;
//     std::string order = "shuffled";
//     void visit(ConfigFields& f) {
//       f.field("micro_batch_size", micro_batch_size, "sequences in one micro-batch");
//       f.field("order", order, "order of samples", {"shuffled", "sequential"});
//     }
//     void validate() const;   // throws ConfigError; called by the owner, not by the binder
//   };
//
//   ConfigTree tree = ConfigTree::load("train.yaml", {"batch.micro_batch_size=4"});
//   TrainConfig config;  bind_config(tree, config);
//
// Refused, with file, line and what to do: unknown keys (with the nearest known one), values of the
// wrong type, words outside a field's list, duplicate keys, overrides that are not key=value, and
// YAML's anchors, aliases, tags and second documents. A whole number is plain decimal digits, a
// number is finite, a truth value is true or false. An empty file or section keeps the defaults.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// A parsed YAML file with the command line's overrides laid over it. Read only.
class ConfigTree {
 public:
  // Reads path and applies overrides of the form "a.b.c=value" in order; missing sections are made.
  // A value that starts with [ or a quote is YAML; any other stands for itself to its last
  // character, so nothing after the = is the empty text. Throws ConfigError: file missing or
  // unreadable, not YAML (with the line), a malformed override.
  static ConfigTree load(const std::string& path, const std::vector<std::string>& overrides);
  // The same from text; name stands for the file in messages.
  static ConfigTree parse(const std::string& text, const std::string& name,
                          const std::vector<std::string>& overrides);

  ConfigTree(ConfigTree&&) noexcept;
  ConfigTree& operator=(ConfigTree&&) noexcept;
  ~ConfigTree();

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  explicit ConfigTree(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A word that stands for a number ("auto"), which itself may not be given.
struct NumberWord {
  std::string_view word;
  std::int64_t number;
};

// What a component's visit() talks to: a reader, a writer, or a documenter of settings.
class ConfigFields {
 public:
  virtual ~ConfigFields() = default;

  virtual void field(std::string_view name, bool& value, std::string_view help) = 0;
  virtual void field(std::string_view name, std::int64_t& value, std::string_view help) = 0;
  virtual void field(std::string_view name, std::int64_t& value, std::string_view help,
                     const NumberWord& word) = 0;
  virtual void field(std::string_view name, double& value, std::string_view help) = 0;
  // With words, the value must be one of them.
  virtual void field(std::string_view name, std::string& value, std::string_view help,
                     std::initializer_list<std::string_view> words = {}) = 0;
  virtual void field(std::string_view name, std::vector<std::string>& value,
                     std::string_view help) = 0;
  // A setting that there is not, because of what another one is ("of sgd and muon, but this is
  // lion"): where it is given, that is refused with the reason.
  virtual void refuse(std::string_view /*name*/, std::string_view /*reason*/) {}

  // A nested component: any struct with visit(ConfigFields&).
  template <class Component>
  void section(std::string_view name, Component& component, std::string_view help) {
    if (enter(name, help)) {
      component.visit(*this);
      leave();
    }
  }

 protected:
  virtual bool enter(std::string_view name, std::string_view help) = 0;
  virtual void leave() = 0;
};

namespace detail {
std::unique_ptr<ConfigFields> config_reader(const ConfigTree& tree);
void finish_config_reader(ConfigFields& reader);
std::unique_ptr<ConfigFields> config_writer(bool with_help);
std::string finish_config_writer(ConfigFields& writer);
}  // namespace detail

// Fills config from the tree; keys that the tree lacks keep their defaults. Throws ConfigError.
template <class Config>
void bind_config(const ConfigTree& tree, Config& config) {
  const std::unique_ptr<ConfigFields> reader = detail::config_reader(tree);
  config.visit(*reader);
  detail::finish_config_reader(*reader);
}

// The config as YAML, every key with its value, in declaration order, so that loading it gives the
// same config. With help, each key carries its explanation as a comment.
template <class Config>
std::string config_to_yaml(const Config& config, bool with_help = false) {
  const std::unique_ptr<ConfigFields> writer = detail::config_writer(with_help);
  Config copy = config;
  copy.visit(*writer);
  return detail::finish_config_writer(*writer);
}

// The element of known that is nearest to word by edit distance, if it is near enough to be meant;
// failing that, one that contains word or is contained in it.
std::optional<std::string> nearest_word(std::string_view word,
                                        const std::vector<std::string>& known);

}  // namespace trireme
