module github.com/abaci-infra/flyreplay

go 1.22
