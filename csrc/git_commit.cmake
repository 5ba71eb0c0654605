# Writes OUTPUT, a C++ source that names the git commit of SOURCE_DIR ("unknown" outside a checkout,
# "+" behind it where tracked files differ from it).
set(commit "unknown")
find_program(git git)
# SOURCE_DIR must itself be the checkout: an unpacked archive inside somebody's repository is not.
if(git AND EXISTS "${SOURCE_DIR}/.git")
  execute_process(COMMAND ${git} rev-parse HEAD WORKING_DIRECTORY "${SOURCE_DIR}"
    OUTPUT_VARIABLE head OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
  if(NOT failed)
    set(commit "${head}")
    execute_process(COMMAND ${git} diff --quiet HEAD WORKING_DIRECTORY "${SOURCE_DIR}"
      RESULT_VARIABLE changed ERROR_QUIET)
    if(changed)
      string(APPEND commit "+")
    endif()
  endif()
endif()
set(text "extern const char* const pymlp_git_commit;\nconst char* const pymlp_git_commit = \"${commit}\";\n")
set(old "")
if(EXISTS "${OUTPUT}")
  file(READ "${OUTPUT}" old)
endif()
if(NOT text STREQUAL old)
  file(WRITE "${OUTPUT}" "${text}")
endif()
