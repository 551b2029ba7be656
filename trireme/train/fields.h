// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a run reports: an ordered list of names and values. The same list becomes a line of
// metrics.jsonl, the scalars of an event file, summary.json and the table at the end.
//
//   const Fields fields = {{"step", step}, {"loss", loss}, {"dtype", "bf16"}, {"stopped", false}};
//   std::fputs(to_json_line(fields).c_str(), stdout);
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace trireme {

using FieldValue = std::variant<bool, std::int64_t, double, std::string>;
// Names are unique.
using Fields = std::vector<std::pair<std::string, FieldValue>>;

// A value as JSON. Numbers read back as the same bits; NaN and infinities, which JSON lacks, become
// null; bytes of a string that are not UTF-8 become U+FFFD.
std::string to_json(const FieldValue& value);

// One JSON object in one line, in order, with the line break.
std::string to_json_line(const Fields& fields);

}  // namespace trireme
