// Reads what tests/test_cuda_emulation.py wrote and writes what it reads: plain arrays, each one a
// heap block of its exact size, so that AddressSanitizer sees accesses outside it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

class Reader {
 public:
  explicit Reader(const char* path) : file_(std::fopen(path, "rb")) {
    if (file_ == nullptr) stop("cannot open the input");
  }
  ~Reader() { std::fclose(file_); }

  template <class T>
  T value() {
    T x;
    if (std::fread(&x, sizeof(T), 1, file_) != 1) stop("the input is too short");
    return x;
  }
  template <class T>
  std::unique_ptr<T[]> array(int64_t n) {
    std::unique_ptr<T[]> x(new T[static_cast<size_t>(n)]);
    if (std::fread(x.get(), sizeof(T), static_cast<size_t>(n), file_) != static_cast<size_t>(n)) {
      stop("the input is too short");
    }
    return x;
  }

 private:
  std::FILE* file_;

  [[noreturn]] static void stop(const char* why) {
    std::fprintf(stderr, "%s\n", why);
    std::exit(2);
  }
};

class Writer {
 public:
  explicit Writer(const char* path) : file_(std::fopen(path, "wb")) {
    if (file_ == nullptr) std::exit(2);
  }
  ~Writer() { std::fclose(file_); }

  template <class T>
  void array(const std::unique_ptr<T[]>& x, int64_t n) {
    if (std::fwrite(x.get(), sizeof(T), static_cast<size_t>(n), file_) != static_cast<size_t>(n)) {
      std::exit(2);
    }
  }
  void end_of_pass(const char*) {}

 private:
  std::FILE* file_;
};

// An output that has not been written yet: every byte 0xff, a NaN.
template <class T>
std::unique_ptr<T[]> unwritten(int64_t n) {
  std::unique_ptr<T[]> x(new T[static_cast<size_t>(n)]);
  for (size_t i = 0; i < static_cast<size_t>(n) * sizeof(T); ++i) {
    reinterpret_cast<unsigned char*>(x.get())[i] = 0xff;
  }
  return x;
}
