// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/config.h"
#include "trireme/base/error.h"
#include "trireme/base/internal/config_node.h"
#include "trireme/base/internal/nearest_word.h"

namespace trireme::detail {
namespace {

using Kind = ConfigNode::Kind;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// -?(0|[1-9][0-9]*): no other base, no separators, and no leading zero, which some readers of YAML
// take for octal.
bool is_whole_number(std::string_view text) {
  if (!text.empty() && text.front() == '-') text.remove_prefix(1);
  if (text.empty() || (text.size() > 1 && text.front() == '0')) return false;
  return std::all_of(text.begin(), text.end(), is_digit);
}

// What a setting is called and where it was set, for messages.
struct Setting {
  const ConfigNode& node;
  std::string path;

  [[noreturn]] void refuse(std::string_view wanted, std::string_view hint = "") const {
    throw_error<ConfigError>("{}: {} wants {}, got {}{}", node.where, path, wanted, describe(node),
                             hint);
  }
  void require_plain(std::string_view wanted) const {
    if (node.kind != Kind::kScalar || node.quoted) refuse(wanted);
  }
};

std::int64_t parse_integer(const Setting& setting) {
  constexpr std::string_view kWanted = "a whole number";
  setting.require_plain(kWanted);
  const std::string& text = setting.node.text;
  if (!is_whole_number(text)) {
    const bool numeric = !text.empty() && is_digit(text.front());
    setting.refuse(kWanted, numeric ? ", write it in plain digits" : "");
  }
  std::int64_t value = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc()) {
    setting.refuse(fmt::format("a whole number between {} and {}",
                               std::numeric_limits<std::int64_t>::min(),
                               std::numeric_limits<std::int64_t>::max()));
  }
  return value;
}

std::int64_t parse_integer_or(const Setting& setting, const NumberWord& word) {
  const std::string wanted = fmt::format("a whole number or {}", word.word);
  setting.require_plain(wanted);
  const std::string& text = setting.node.text;
  if (text == word.word) return word.number;
  if (!is_whole_number(text)) setting.refuse(wanted);
  const std::int64_t value = parse_integer(setting);
  if (value == word.number) setting.refuse(wanted);
  return value;
}

double parse_number(const Setting& setting) {
  setting.require_plain("a number");
  const std::string& text = setting.node.text;
  const char* end = text.data() + text.size();
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  double value = 0.0;
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (error == std::errc::result_out_of_range && stop == end) {
    setting.refuse("a number within the range of a 64-bit float");
  }
  // After a '+' from_chars would take a second sign.
  if (error != std::errc() || stop != end || (begin != text.data() && *begin == '-')) {
    setting.refuse("a number");
  }
  if (!std::isfinite(value)) setting.refuse("a finite number");
  return value;
}

bool parse_bool(const Setting& setting) {
  setting.require_plain("true or false");
  const std::string& text = setting.node.text;
  if (text != "true" && text != "false") setting.refuse("true or false");
  return text == "true";
}

std::string parse_text(const Setting& setting) {
  if (setting.node.kind == Kind::kNothing) setting.refuse("text", ", write \"\" for an empty one");
  if (setting.node.kind != Kind::kScalar) setting.refuse("text");
  return setting.node.text;
}

std::string parse_word(const Setting& setting, const std::vector<std::string>& words) {
  const std::string wanted = fmt::format("one of: {};", fmt::join(words, ", "));
  if (setting.node.kind != Kind::kScalar) {
    throw_error<ConfigError>("{}: {} wants {} got {}", setting.node.where, setting.path, wanted,
                             describe(setting.node));
  }
  const std::string& text = setting.node.text;
  if (std::find(words.begin(), words.end(), text) == words.end()) {
    const auto near = nearest_word(text, words);
    throw_error<ConfigError>("{}: {} wants {} got '{}'{}", setting.node.where, setting.path, wanted,
                             text, near ? fmt::format(", did you mean '{}'?", *near) : "");
  }
  return text;
}

std::vector<std::string> parse_list(const Setting& setting) {
  if (setting.node.kind == Kind::kScalar) {
    setting.refuse("a list", fmt::format(", write [{}] for a list of one", setting.node.text));
  }
  if (setting.node.kind != Kind::kList) setting.refuse("a list", ", write [] for an empty one");
  std::vector<std::string> values;
  for (std::size_t i = 0; i < setting.node.items.size(); ++i) {
    values.push_back(parse_text({setting.node.items[i], fmt::format("{}[{}]", setting.path, i)}));
  }
  return values;
}

// A key that some component declared.
struct KnownKey {
  std::string section;
  std::string name;
  bool is_section = false;

  std::string path() const { return join_path(section, name); }
};

class ConfigReader final : public ConfigFields {
 public:
  explicit ConfigReader(const ConfigNode& root) : root_(root), open_{{&root, ""}} {}

  void field(std::string_view name, bool& value, std::string_view) override {
    read(name, value, parse_bool);
  }
  void field(std::string_view name, std::int64_t& value, std::string_view) override {
    read(name, value, parse_integer);
  }
  void field(std::string_view name, std::int64_t& value, std::string_view,
             const NumberWord& word) override {
    read(name, value, [&](const Setting& setting) { return parse_integer_or(setting, word); });
  }
  void field(std::string_view name, double& value, std::string_view) override {
    read(name, value, parse_number);
  }
  void field(std::string_view name, std::string& value, std::string_view,
             std::initializer_list<std::string_view> words) override {
    const std::vector<std::string> known(words.begin(), words.end());
    read(name, value, [&](const Setting& setting) {
      return known.empty() ? parse_text(setting) : parse_word(setting, known);
    });
  }
  void field(std::string_view name, std::vector<std::string>& value, std::string_view) override {
    read(name, value, parse_list);
  }
  void refuse(std::string_view name, std::string_view reason) override {
    const ConfigNode* node = declare(name, false);
    if (node == nullptr) return;
    throw_error<ConfigError>("{}: {} {}", node->where, join_path(open_.back().path, name), reason);
  }

  void finish() const {
    TRIREME_CHECK_EQ(open_.size(), std::size_t{1}, "every section that is entered is left");
    std::vector<Unknown> unknown;
    collect_unknown(root_, "", unknown);
    if (unknown.empty()) return;
    std::sort(unknown.begin(), unknown.end(),
              [](const Unknown& a, const Unknown& b) { return a.entry->order < b.entry->order; });
    std::string message = describe_unknown(unknown.front());
    if (unknown.size() > 1) {
      message += fmt::format(" And {} more:", unknown.size() - 1);
      for (std::size_t i = 1; i < unknown.size(); ++i) {
        message += fmt::format("{} '{}' ({})", i > 1 ? "," : "", unknown[i].path(),
                               unknown[i].entry->value.where);
      }
    }
    throw ConfigError(message);
  }

 protected:
  bool enter(std::string_view name, std::string_view) override {
    const ConfigNode* node = declare(name, true);
    const std::string path = join_path(open_.back().path, name);
    if (node != nullptr && node->kind == Kind::kNothing) node = nullptr;
    if (node != nullptr && node->kind != Kind::kSection) {
      throw_error<ConfigError>(
          "{}: {} is a section of settings, got {}, write {}.key or indent below it", node->where,
          path, describe(*node), path);
    }
    open_.push_back({node, path});
    return true;
  }
  void leave() override { open_.pop_back(); }

 private:
  struct Open {
    const ConfigNode* node;  // null where the configuration lacks the section
    std::string path;
  };
  struct Unknown {
    const ConfigNode::Entry* entry;
    std::string section;

    std::string path() const { return join_path(section, entry->key); }
  };

  template <class Value, class Parse>
  void read(std::string_view name, Value& value, Parse parse) {
    const ConfigNode* node = declare(name, false);
    if (node != nullptr) value = parse(Setting{*node, join_path(open_.back().path, name)});
  }

  // Notes that the key exists; returns what the configuration gives it, if anything. Two components
  // may share a section, but not a setting.
  const ConfigNode* declare(std::string_view name, bool is_section) {
    const Open& section = open_.back();
    const KnownKey* known = find_known(section.path, name);
    TRIREME_ASSERT(known == nullptr || (is_section && known->is_section),
                   "setting {} is declared once", join_path(section.path, name));
    if (known == nullptr) known_.push_back({section.path, std::string(name), is_section});
    const ConfigNode::Entry* entry = section.node ? section.node->find(name) : nullptr;
    return entry ? &entry->value : nullptr;
  }

  const KnownKey* find_known(std::string_view section, std::string_view name) const {
    const auto found = std::find_if(known_.begin(), known_.end(), [&](const KnownKey& key) {
      return key.section == section && key.name == name;
    });
    return found == known_.end() ? nullptr : &*found;
  }

  void collect_unknown(const ConfigNode& node, const std::string& section,
                       std::vector<Unknown>& unknown) const {
    for (const ConfigNode::Entry& entry : node.entries) {
      const KnownKey* known = find_known(section, entry.key);
      if (known == nullptr) {
        unknown.push_back({&entry, section});
      } else if (known->is_section) {
        collect_unknown(entry.value, join_path(section, entry.key), unknown);
      }
    }
  }

  std::string describe_unknown(const Unknown& unknown) const {
    const bool is_section = unknown.entry->value.kind == Kind::kSection;
    return fmt::format("{}: unknown {} '{}'{}", unknown.entry->value.where,
                       is_section ? "section" : "key", unknown.path(), hint(unknown, is_section));
  }

  // The known key of the same kind that is most like the unknown one; at equal likeness, one of the
  // same section.
  std::string hint(const Unknown& unknown, bool is_section) const {
    const std::string& word = unknown.entry->key;
    const KnownKey* best = nullptr;
    std::size_t best_likeness = 0;
    for (const KnownKey& key : known_) {
      if (key.path() == word) return ", a dot does not open a section in a file: indent below it.";
      const auto near = likeness(word, key.name);
      if (!near || key.is_section != is_section) continue;
      const std::size_t value = 2 * *near + (key.section == unknown.section ? 0 : 1);
      if (best == nullptr || value < best_likeness) {
        best = &key;
        best_likeness = value;
      }
    }
    if (best != nullptr) {
      const bool sibling = best->section == unknown.section;
      return fmt::format(", did you mean '{}'?", sibling ? best->name : best->path());
    }
    std::vector<std::string> siblings;
    for (const KnownKey& key : known_) {
      if (key.section == unknown.section) siblings.push_back(key.name);
    }
    return siblings.empty() ? "." : fmt::format(", known here: {}.", fmt::join(siblings, ", "));
  }

  const ConfigNode& root_;
  std::vector<Open> open_;
  std::vector<KnownKey> known_;
};

}  // namespace

std::unique_ptr<ConfigFields> config_reader(const ConfigTree& tree) {
  return std::make_unique<ConfigReader>(tree.impl().root);
}

void finish_config_reader(ConfigFields& reader) { dynamic_cast<ConfigReader&>(reader).finish(); }

}  // namespace trireme::detail
