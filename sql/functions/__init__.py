"""One public function a file, create or replace."""
