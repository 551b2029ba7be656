// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/config.h"
#include "trireme/base/error.h"

namespace trireme::detail {
namespace {

constexpr std::size_t kIndent = 2;

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Whether every reader of YAML, 1.1 or 1.2, takes the bare word for text.
bool is_plain(std::string_view text) {
  constexpr std::array<std::string_view, 11> kReserved = {
      "true", "false", "yes", "no", "on", "off", "y", "n", "null", "inf", "nan"};
  if (text.empty() || !(is_letter(text.front()) || text.front() == '/' || text.front() == '_')) {
    return false;
  }
  const bool safe = std::all_of(text.begin(), text.end(), [](char c) {
    return is_letter(c) || is_digit(c) || c == '_' || c == '/' || c == '.' || c == '-' || c == '+';
  });
  std::string lower(text);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return safe && std::find(kReserved.begin(), kReserved.end(), lower) == kReserved.end();
}

// Bytes above 127 stand for themselves: YAML's own escapes could not tell a byte from a character.
std::string to_yaml(const std::string& text) {
  if (is_plain(text)) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (byte < 0x20 || byte == 0x7f) {
      quoted += fmt::format("\\x{:02x}", byte);
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

class ConfigWriter final : public ConfigFields {
 public:
  explicit ConfigWriter(bool with_help) : with_help_(with_help) {}

  void field(std::string_view name, bool& value, std::string_view help) override {
    line(name, value ? "true" : "false", help);
  }
  void field(std::string_view name, std::int64_t& value, std::string_view help) override {
    line(name, fmt::format("{}", value), help);
  }
  void field(std::string_view name, std::int64_t& value, std::string_view help,
             const NumberWord& word) override {
    line(name, value == word.number ? std::string(word.word) : fmt::format("{}", value), help);
  }
  void field(std::string_view name, double& value, std::string_view help) override {
    if (!std::isfinite(value)) {
      throw_error<ConfigError>("{} is {}, wanted a finite number", join(name), value);
    }
    std::string text = fmt::format("{}", value);  // the fewest digits that read back the same
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
    line(name, text, help);
  }
  void field(std::string_view name, std::string& value, std::string_view help,
             std::initializer_list<std::string_view> words) override {
    const std::string choice = words.size() == 0
                                   ? ""
                                   : fmt::format("{}one of: {}", help.empty() ? "" : "; ",
                                                 fmt::join(words.begin(), words.end(), ", "));
    line(name, to_yaml(value), std::string(help) + choice);
  }
  void field(std::string_view name, std::vector<std::string>& value,
             std::string_view help) override {
    std::vector<std::string> items;
    for (const std::string& item : value) items.push_back(to_yaml(item));
    line(name, fmt::format("[{}]", fmt::join(items, ", ")), help);
  }

  std::string finish() {
    TRIREME_CHECK_EQ(sections_.size(), std::size_t{0}, "every section that is entered is left");
    return std::move(text_);
  }

 protected:
  bool enter(std::string_view name, std::string_view help) override {
    line(name, "", help);
    sections_.emplace_back(name);
    return true;
  }
  void leave() override { sections_.pop_back(); }

 private:
  std::string join(std::string_view name) const {
    return sections_.empty() ? std::string(name)
                             : fmt::format("{}.{}", fmt::join(sections_, "."), name);
  }

  void line(std::string_view name, std::string_view value, std::string_view help) {
    text_ += fmt::format("{}{}:", std::string(kIndent * sections_.size(), ' '), name);
    if (!value.empty()) text_ += fmt::format(" {}", value);
    if (with_help_ && !help.empty()) {
      std::string comment(help);
      std::replace(comment.begin(), comment.end(), '\n', ' ');
      text_ += fmt::format("  # {}", comment);
    }
    text_ += '\n';
  }

  bool with_help_;
  std::string text_;
  std::vector<std::string> sections_;
};

}  // namespace

std::unique_ptr<ConfigFields> config_writer(bool with_help) {
  return std::make_unique<ConfigWriter>(with_help);
}

std::string finish_config_writer(ConfigFields& writer) {
  return dynamic_cast<ConfigWriter&>(writer).finish();
}

}  // namespace trireme::detail
