// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/prepare_data.h"

#include <fmt/format.h>

#include <memory>
#include <string>

#include "trireme/base/log.h"
#include "trireme/base/progress.h"

namespace trireme {

PrepareReport prepare_with_progress(const PrepareOptions& options) {
  std::unique_ptr<Progress> bar;
  std::string phase;
  PrepareReport report = prepare_tokens(options, [&](const PrepareProgress& progress) {
    if (phase != progress.phase) {
      if (bar) bar->finish();
      phase = progress.phase;
      bar = std::make_unique<Progress>(phase, progress.total,
                                       phase == "training tokenizer" ? "merges" : "B");
    }
    bar->update(progress.done);
  });
  if (bar) bar->finish();
  return report;
}

void report_preparation(const PrepareOptions& options, const PrepareReport& report) {
  std::string skipped;
  for (const auto& [reason, files] : report.skipped) {
    skipped += fmt::format("{}{} {}", skipped.empty() ? "; skipped " : ", ", files, reason);
  }
  log_info("{}: {} files, {:.1f} MB, {} training and {} validation tokens of {}{}{}", options.text,
           report.files, static_cast<double>(report.bytes) / 1e6, report.train_tokens,
           report.validation_tokens, report.vocab_size, report.reused ? " (as before)" : "",
           skipped);
}

}  // namespace trireme
