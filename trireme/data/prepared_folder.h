// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The folder that prepare_tokens() makes: all of it or nothing. Internal to trireme/data.
#pragma once

#include <optional>
#include <string>

#include "trireme/data/corpus.h"
#include "trireme/data/file_io.h"

namespace trireme::detail {

// A folder in the making, beside its final place as <output>.partial. Two processes that make the
// same one: the second gets a DataError. What a killed process left is removed by the next.
class PartialFolder {
 public:
  // Creates it, and the folders above. Throws DataError with the system's reason.
  explicit PartialFolder(std::string output);
  ~PartialFolder();  // removes it unless committed
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  const std::string& path() const { return partial_; }
  // Renames it to output, which must not exist or be an empty folder. Throws DataError.
  void commit();

  static std::string partial_name(const std::string& output) { return output + ".partial"; }

 private:
  std::string output_;
  std::string partial_;
  FileDescriptor lock_;
  bool committed_ = false;
};

// What decides the content of a prepared folder, as JSON with sorted keys.
std::string made_from(const PrepareOptions& options, const std::string& text,
                      const std::string& files_hash, const std::string& tokenizer_hash);

void write_manifest(const std::string& folder, const std::string& made_from,
                    const PrepareReport& report);

// What output holds already if it was made from the same: its report, with reused set. Nothing if
// output does not exist or is an empty folder. Throws DataError when it holds something else, with
// what differs, or is damaged.
std::optional<PrepareReport> find_prepared(const std::string& output, const std::string& made_from);

}  // namespace trireme::detail
