// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/metrics_log.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/checkpoint/atomic_file.h"

namespace trireme {
namespace {

enum class Verdict { kKeep, kLater, kDamaged };

Verdict judge(std::string_view line, std::int64_t last_step) {
  const nlohmann::json record = nlohmann::json::parse(line, nullptr, false);
  if (!record.is_object()) {
    return Verdict::kDamaged;
  }
  const auto step = record.find("step");
  const bool later = step != record.end() && step->is_number() && *step > last_step;
  return later ? Verdict::kLater : Verdict::kKeep;
}

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (file.peek() != std::ifstream::traits_type::eof()) {
    content << file.rdbuf();
  }
  if (file.bad() || !content) {
    throw_error<ConfigError>("cannot read '{}'", path);
  }
  return std::move(content).str();
}

}  // namespace

MetricsLog::MetricsLog(const std::string& path) : file_(path, AppendFile::Existing::kContinue) {
  file_.drop_torn_line();
}

void MetricsLog::append(const Fields& fields) { file_.append(to_json_line(fields)); }

std::int64_t MetricsLog::truncate_after(std::int64_t step) {
  const std::string content = read_all(file_.path());
  std::string kept;
  std::int64_t later = 0;
  std::int64_t damaged = 0;
  for (std::string_view rest = content; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n') + 1);
    rest.remove_prefix(line.size());
    const Verdict verdict = judge(line, step);
    if (verdict == Verdict::kKeep) {
      kept += line;
    }
    later += verdict == Verdict::kLater ? 1 : 0;
    damaged += verdict == Verdict::kDamaged ? 1 : 0;
  }
  if (damaged > 0) {
    log_warn("'{}': dropped {} damaged line{}", file_.path(), damaged, damaged == 1 ? "" : "s");
  }
  if (later + damaged > 0) {
    write_file_atomically(file_.path(), kept);
    file_.reopen();
  }
  return later + damaged;
}

}  // namespace trireme
