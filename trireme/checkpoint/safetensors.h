// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// safetensors: the file format of weights. A JSON header with names, dtypes, shapes and offsets,
// then the bytes. Source: the format description of the safetensors project
// (huggingface/safetensors README, "Format").
//
//   SafetensorsWriter writer("model.safetensors");                       // to a file of its own
//   writer.add("wte.weight", DType::kF32, {vocab, width}, data);         // declared first, ...
//   writer.write({{"format", "pt"}});                                    // ... written in one
//   pass, fsynced
//
//   const SafetensorsFile file("model.safetensors");                     // memory-mapped, fully
//   checked const TensorView& t = file.at("wte.weight");
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trireme/base/dtype.h"

namespace trireme {

// A tensor inside a file or about to be written; the memory is not owned.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

class SafetensorsWriter {
 public:
  // path must not exist. Nothing is created before write().
  explicit SafetensorsWriter(std::string path);
  // data must stay valid until write(). Throws ConfigError on a repeated name, ShapeError when
  // bytes and shape differ.
  void add(const std::string& name, DType dtype, std::vector<std::int64_t> shape,
           std::span<const std::byte> data);
  // Writes and fsyncs the file; returns the xxh3-64 of its bytes as 16 hex digits. Throws
  // CheckpointError with the system's reason (no space, no permission); a partial file is removed.
  std::string write(const std::map<std::string, std::string>& metadata);

 private:
  struct Entry {
    std::string name;
    TensorView view;
  };
  std::string path_;
  std::vector<Entry> entries_;
};

// Constant after construction; any thread may read.
class SafetensorsFile {
 public:
  // Throws CheckpointError: missing, not safetensors, truncated, offsets that overlap or leave the
  // file, a header above 100 MB. Nothing is allocated on the word of the file before it was
  // checked.
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::map<std::string, TensorView>& tensors() const;
  const std::map<std::string, std::string>& metadata() const;
  // Throws CheckpointError when there is no such tensor, naming the file.
  const TensorView& at(const std::string& name) const;
  // xxh3-64 of the file's bytes as 16 hex digits. Reads the whole file.
  std::string digest() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme
