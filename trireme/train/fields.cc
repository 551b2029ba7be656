// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/fields.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace trireme {
namespace {

std::string quote(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

struct JsonWriter {
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(std::int64_t value) const { return fmt::format("{}", value); }
  std::string operator()(double value) const {
    return std::isfinite(value) ? fmt::format("{}", value) : "null";
  }
  std::string operator()(const std::string& value) const { return quote(value); }
};

}  // namespace

std::string to_json(const FieldValue& value) { return std::visit(JsonWriter(), value); }

std::string to_json_line(const Fields& fields) {
  std::string line = "{";
  for (const auto& [name, value] : fields) {
    line += fmt::format("{}{}: {}", line.size() > 1 ? ", " : "", quote(name), to_json(value));
  }
  return line + "}\n";
}

}  // namespace trireme
